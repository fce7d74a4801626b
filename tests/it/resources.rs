//! Resources that upstreams keep: found by their ids where they are, and only by their project.

use serde_json::{Value, json};

use crate::support::{
    client::{HttpAnswer, Request},
    proxy::{CLIENT_KEY, Proxy, Setup},
    upstream::{Scene, Upstream},
};

const GUEST: &str = "aip-it-guest-0123456789abcdef01234567";

fn guest_project() -> String {
    format!("[[project]]\nname = \"guest\"\nkey = \"{GUEST}\"\n")
}

fn get(proxy: &Proxy, key: &str, path: &str) -> HttpAnswer {
    Request::get(path).bearer(key).send(proxy.addr)
}

fn post(proxy: &Proxy, key: &str, path: &str, body: &Value) -> HttpAnswer {
    Request::post(path, body).bearer(key).send(proxy.addr)
}

#[test]
fn resource_is_routed_to_its_upstream_for_its_project_only() {
    let one = Upstream::start(vec![Scene::json(200, &json!({"id": "file-of-one"}))]);
    let two = Upstream::start(vec![Scene::json(200, &json!({"id": "file-abc123"}))]);
    let proxy = Setup::new()
        .config(&guest_project())
        .upstream("one", &one, &["work"])
        .upstream("two", &two, &["work", "other"])
        .start();
    let upload = Request::post("/v1/files", &json!({"purpose": "batch"})).bearer(CLIENT_KEY);
    assert_eq!(upload.header("x-aiproxy-upstream", "two").send(proxy.addr).status, 200);
    assert_eq!(two.requests().len(), 1);

    let path = "/v1/files/file-abc123/content";
    assert_eq!(get(&proxy, CLIENT_KEY, path).status, 200);
    let batch = json!({"input_file_id": "file-abc123", "endpoint": "/v1/responses"});
    assert_eq!(post(&proxy, CLIENT_KEY, "/v1/batches", &batch).status, 200);
    assert_eq!((one.requests().len(), two.requests().len()), (0, 3), "where the file is");
    assert!(two.requests().iter().all(|seen| seen.key() == two.requests()[0].key()), "its key");

    for path in [
        "/v1/files/file-abc123",
        "/v1/files/file-abc123/content",
        "/v1/files/%66ile-abc123",
        "/u/two/v1/files/file-abc123",
        "/u/two/v1/files/%2566ile-abc123",
    ] {
        assert_eq!(get(&proxy, GUEST, path).status, 404, "{path}");
    }
    assert_eq!(post(&proxy, GUEST, "/v1/batches", &batch).status, 404);
    assert_eq!(post(&proxy, GUEST, "/u/two/v1/batches", &batch).status, 404);
    assert_eq!((one.requests().len(), two.requests().len()), (0, 3), "nothing was sent");
    assert_eq!(get(&proxy, GUEST, "/v1/files/file-unknown").status, 200, "the first upstream");
    assert_eq!(one.requests().len(), 1);

    let proxy = proxy.restart();
    assert_eq!(get(&proxy, CLIENT_KEY, path).status, 200);
    assert_eq!((one.requests().len(), two.requests().len()), (1, 4), "also after a restart");
    assert_eq!(get(&proxy, GUEST, path).status, 404);
}

#[test]
fn owners_of_stored_responses_survive_a_restart() {
    let answer = json!({"id": "resp_abc", "object": "response", "status": "completed", "model": "m",
        "output": [{"id": "msg_1", "type": "message", "role": "assistant", "status": "completed",
            "content": [{"type": "output_text", "text": "hi", "annotations": []}]}],
        "usage": {"input_tokens": 1, "output_tokens": 1, "total_tokens": 2}});
    let upstream = Upstream::start(vec![Scene::json(200, &answer)]);
    let proxy = Setup::new()
        .config(&guest_project())
        .upstream_with_dialect("responses", "one", &upstream, "")
        .start();
    let ask = json!({"model": "m", "input": "hi"});
    assert_eq!(post(&proxy, CLIENT_KEY, "/v1/responses", &ask).status, 200);

    let proxy = proxy.restart();
    assert_eq!(get(&proxy, GUEST, "/v1/responses/resp_abc").status, 404);
    let next = json!({"model": "m", "input": "hi", "previous_response_id": "resp_abc"});
    assert_eq!(post(&proxy, GUEST, "/v1/responses", &next).status, 400);
    assert_eq!(upstream.requests().len(), 1);
    let again = get(&proxy, CLIENT_KEY, "/v1/responses/resp_abc");
    assert_eq!((again.status, &again.json()["id"]), (200, &json!("resp_abc")));
    assert_eq!(post(&proxy, CLIENT_KEY, "/v1/responses", &next).status, 200);
    assert_eq!(upstream.requests().len(), 3);
}
