//! API descriptions as servers: each operation of an OpenAPI or Swagger document is a tool.

mod credential;
mod document;
mod form;
mod operation;
mod request;
mod response;
mod schema;

use std::sync::Arc;

use crate::{
    base::json::raw::RawJson,
    config::settings::McpServer,
    mcp::{
        message::{self, INVALID_PARAMS, METHOD_NOT_FOUND, RpcError},
        openapi::{credential::ApiCredential, operation::Operation},
        wire::peer::{BoxedAnswer, LocalService},
    },
    secrets::resolve::SecretResolver,
    upstream::web_client::WebClient,
};

/// Makes the server of a row with `openapi`.
///
/// # Errors
///
/// A sentence: the document or the credential cannot be read.
pub async fn connect(
    row: &Arc<McpServer>,
    web: &Arc<WebClient>,
    resolver: &SecretResolver,
) -> Result<Arc<dyn LocalService>, String> {
    let credential = ApiCredential::read(row, resolver).await?;
    let document = document::load(row, web).await?;
    let operations = operation::read_all(&document, row)?;
    Ok(Arc::new(ApiServer { operations, credential, web: Arc::clone(web) }))
}

/// An API.
struct ApiServer {
    operations: Vec<Operation>,
    credential: ApiCredential,
    web: Arc<WebClient>,
}

impl LocalService for ApiServer {
    fn answer<'a>(&'a self, method: &'a str, params: Option<&'a RawJson>) -> BoxedAnswer<'a> {
        Box::pin(async move {
            match method {
                "tools/list" => Ok(RawJson::object(|o| {
                    o.array("tools", |a| {
                        for operation in &self.operations {
                            a.raw(&operation.listed);
                        }
                    });
                })),
                "tools/call" => {
                    let name = message::text_param(params, "name").unwrap_or_default();
                    let operation = self.operations.iter().find(|one| one.name == name);
                    let operation = operation.ok_or_else(|| {
                        RpcError::new(INVALID_PARAMS, format!("unknown tool: {name}"))
                    })?;
                    let arguments = params.and_then(|params| params.json().get("arguments"));
                    let arguments = arguments.map(RawJson::from_json);
                    Ok(self.call(operation, arguments.as_ref()).await)
                }
                _ => Err(RpcError::new(METHOD_NOT_FOUND, format!("no method `{method}`"))),
            }
        })
    }
}

impl ApiServer {
    async fn call(&self, operation: &Operation, arguments: Option<&RawJson>) -> RawJson {
        let request = match request::build(operation, arguments) {
            Ok(request) => request,
            Err(why) => return response::failure(&why),
        };
        let answered = response::fetch(&self.web, request, &self.credential).await;
        answered.unwrap_or_else(|why| response::failure(&self.credential.hide(&why)))
    }
}
