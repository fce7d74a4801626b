//! Probes which local servers respond.

use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join_all;
use http::{Request, Uri, header::ACCEPT};
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};

/// A server on this machine responds within this time or is not running.
const PROBE_TIMEOUT: Duration = Duration::from_millis(300);
const MAX_BODY_BYTES: usize = 4 << 20;

/// Requests all URLs at once (plain HTTP, without a proxy). Returns the JSON body of each that
/// responded with 2xx within 300 ms.
pub async fn fetch_json_bodies<S: AsRef<str>>(urls: &[S]) -> Vec<Option<Bytes>> {
    let mut connector = HttpConnector::new();
    connector.set_connect_timeout(Some(PROBE_TIMEOUT));
    let client = Client::builder(TokioExecutor::new()).pool_max_idle_per_host(0).build(connector);
    let ask = |url: &S| {
        let (client, uri) = (client.clone(), url.as_ref().parse::<Uri>());
        async move {
            let request = Request::get(uri.ok()?)
                .header(ACCEPT, "application/json")
                .body(Full::<Bytes>::default())
                .ok()?;
            let answer = client.request(request).await.ok()?;
            if !answer.status().is_success() {
                return None;
            }
            let body =
                Limited::new(answer.into_body(), MAX_BODY_BYTES).collect().await.ok()?.to_bytes();
            matches!(body.trim_ascii_start().first(), Some(b'{' | b'[')).then_some(body)
        }
    };
    join_all(
        urls.iter().map(|url| async {
            tokio::time::timeout(PROBE_TIMEOUT, ask(url)).await.ok().flatten()
        }),
    )
    .await
}
