//! Writes errors as the providers do. Unlike aiproxy's own errors, they may have any status.

use http::StatusCode;

use crate::{
    base::json::writer,
    demo::{call::DemoError, reply::DemoReply},
    ir::op::Dialect,
};

pub(super) fn error_reply(dialect: Dialect, error: &DemoError) -> DemoReply {
    let body = match dialect {
        Dialect::Anthropic => write_anthropic(error),
        Dialect::Gemini => write_gemini(error),
        Dialect::Ollama => writer::object(|o| {
            o.str("error", &error.message);
        }),
        Dialect::Openai | Dialect::Responses => write_openai(error),
    };
    DemoReply::json(body).with_status(error.status).with_retry_after(error.retry_after)
}

fn write_anthropic(error: &DemoError) -> String {
    let kind = match error.status.as_u16() {
        401 => "authentication_error",
        402 => "billing_error",
        403 => "permission_error",
        404 => "not_found_error",
        413 => "request_too_large",
        429 => "rate_limit_error",
        504 => "timeout_error",
        503 | 529 => "overloaded_error",
        500.. => "api_error",
        _ => "invalid_request_error",
    };
    writer::object(|o| {
        o.str("type", "error").object("error", |o| {
            o.str("type", kind).str("message", &error.message);
        });
        o.null("request_id");
    })
}

fn write_gemini(error: &DemoError) -> String {
    let status = match error.status.as_u16() {
        400 => "INVALID_ARGUMENT",
        401 => "UNAUTHENTICATED",
        403 => "PERMISSION_DENIED",
        404 => "NOT_FOUND",
        409 => "ABORTED",
        429 => "RESOURCE_EXHAUSTED",
        503 => "UNAVAILABLE",
        504 => "DEADLINE_EXCEEDED",
        500.. => "INTERNAL",
        _ => "FAILED_PRECONDITION",
    };
    writer::object(|o| {
        o.object("error", |o| {
            o.num("code", error.status.as_u16())
                .str("message", &error.message)
                .str("status", status);
            if let Some(seconds) = error.retry_after {
                o.array("details", |a| {
                    a.object(|o| {
                        o.str("@type", "type.googleapis.com/google.rpc.RetryInfo")
                            .str("retryDelay", &format!("{seconds}s"));
                    });
                });
            }
        });
    })
}

fn write_openai(error: &DemoError) -> String {
    let kind = match error.status.as_u16() {
        401 => "authentication_error",
        403 => "permission_error",
        429 => "rate_limit_error",
        500.. => "server_error",
        _ => "invalid_request_error",
    };
    let code = error
        .code
        .or((error.status == StatusCode::TOO_MANY_REQUESTS).then_some("rate_limit_exceeded"));
    writer::object(|o| {
        o.object("error", |o| {
            o.str("message", &error.message).str("type", kind).null("param");
            match code {
                Some(code) => o.str("code", code),
                None => o.null("code"),
            };
        });
    })
}
