//! Callers that send anything at all.

use crate::harness::{fresh, quiet};
use seedbank_devchain::{Config, Limits};
use serde_json::{Value, json};

fn code(answer: &Value) -> i64 {
    answer["error"]["code"].as_i64().unwrap_or_else(|| panic!("{answer} is no refusal"))
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_call_is_refused_by_its_kind() {
    let (_dir, chain) = fresh(quiet()).await;
    let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    let deep_params = format!(r#"{{"jsonrpc":"2.0","id":1,"method":"eth_call","params":{deep}}}"#);
    for body in ["", "{", "nonsense", "\u{0}", &deep, &deep_params, r#"{"id":1e999}"#, "[1,", "\"\\ud800\""] {
        assert_eq!(code(&chain.body(body.as_bytes()).await), -32_700, "{:.40}", body);
    }
    assert_eq!(code(&chain.body(&[0xff, 0xfe]).await), -32_700);
    for body in [
        json!(1),
        json!("call"),
        json!([]),
        json!({}),
        json!({"jsonrpc": "1.0", "id": 1, "method": "eth_chainId"}),
        json!({"jsonrpc": "2.0", "id": {}, "method": "eth_chainId"}),
        json!({"jsonrpc": "2.0", "id": 1, "method": 7}),
        json!({"jsonrpc": "2.0", "id": 1}),
    ] {
        assert_eq!(code(&chain.body(body.to_string().as_bytes()).await), -32_600, "{body}");
    }
    assert_eq!(chain.refused(&"x".repeat(100_000), json!([])).await.0, -32_601);
}

#[tokio::test(flavor = "multi_thread")]
async fn parameters_of_the_wrong_kind_are_refused_by_every_method() {
    let (_dir, chain) = fresh(quiet()).await;
    let wrong = [
        json!([1]),
        json!([{}, {}]),
        json!([[]]),
        json!(["0x"]),
        json!(["0xzz", "latest"]),
        json!([true, "latest"]),
        json!(["latest", "latest", "latest"]),
        json!({"to": "0x"}),
        json!("text"),
    ];
    let methods = [
        "eth_sendRawTransaction",
        "eth_getBalance",
        "eth_getTransactionCount",
        "eth_getCode",
        "eth_getStorageAt",
        "eth_getBlockByHash",
        "eth_getTransactionByHash",
        "eth_getTransactionReceipt",
    ];
    for method in methods {
        for params in &wrong {
            let refusal = chain.refused(method, params.clone()).await;
            // `0x` is data, though no transaction.
            assert!(matches!(refusal.0, -32_602 | -32_000), "{method} {params}: {refusal:?}");
        }
        assert_eq!(chain.refused(method, json!([])).await.0, -32_602, "{method}");
    }
    for params in [
        json!([]),
        json!([1]),
        json!([{"to": 5}]),
        json!([{"to": "0x12"}]),
        json!([{"data": "0x1"}]),
        json!([{"data": "0x12", "input": "0x34"}]),
        json!([{"value": "lots"}]),
        json!([{"gas": -5}]),
        json!([{"chainId": "0x1"}]),
        json!([{"accessList": 5}]),
        json!([{"accessList": [{"address": "0x0"}]}]),
        json!([{}, "soon"]),
        json!([{}, "latest", {"0x00": {}}]),
        json!([{}, "latest", 7]),
    ] {
        for method in ["eth_call", "eth_estimateGas"] {
            assert_eq!(chain.refused(method, params.clone()).await.0, -32_602, "{method} {params}");
        }
    }
    for params in [
        json!([]),
        json!([[]]),
        json!([{"address": 5}]),
        json!([{"topics": {}}]),
        json!([{"topics": [[], [], [], [], []]}]),
        json!([{"fromBlock": "soon"}]),
        json!([{"fromBlock": "0x0", "blockHash": format!("0x{}", "1".repeat(64))}]),
    ] {
        assert_eq!(chain.refused("eth_getLogs", params.clone()).await.0, -32_602, "{params}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn batch_is_answered_call_by_call() {
    let (_dir, chain) = fresh(quiet()).await;
    let batch = json!([
        {"jsonrpc": "2.0", "id": "a", "method": "eth_chainId"},
        {"jsonrpc": "2.0", "method": "eth_chainId"},
        {"jsonrpc": "2.0", "id": null, "method": "eth_nothing"},
        5,
    ]);
    let answers = chain.body(batch.to_string().as_bytes()).await;
    let answers = answers.as_array().unwrap();
    assert_eq!(answers.len(), 3, "a notification is not answered");
    assert_eq!(answers[0], json!({"jsonrpc": "2.0", "id": "a", "result": "0x5eed"}));
    assert_eq!((code(&answers[1]), code(&answers[2])), (-32_601, -32_600));
    let notification = json!({"jsonrpc": "2.0", "method": "eth_chainId"});
    assert_eq!(chain.post(notification.to_string().as_bytes()).await, (200, String::new()));
}

#[tokio::test(flavor = "multi_thread")]
async fn too_much_is_refused() {
    let limits =
        Limits { body_bytes_max: 10_000, batch_max: 3, answer_bytes_max: 1_000, ..Limits::default() };
    let (_dir, chain) = fresh(Config { limits, ..quiet() }).await;
    let (status, answer) = chain.post(&vec![b' '; 10_001]).await;
    assert_eq!((status, code(&serde_json::from_str(&answer).unwrap())), (413, -32_005));
    let call =
        |id: u64| json!({"jsonrpc": "2.0", "id": id, "method": "eth_getBlockByNumber", "params": ["0x0"]});
    let batch: Vec<Value> = (0..4).map(call).collect();
    assert_eq!(code(&chain.body(json!(batch).to_string().as_bytes()).await), -32_005);
    let answers = chain.body(json!(batch[..3]).to_string().as_bytes()).await;
    assert!(answers[0]["result"].is_object());
    assert_eq!(code(&answers[2]), -32_005);
    assert_eq!(answers[2]["id"], 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn only_json_posts_to_this_machine_are_looked_at() {
    let (_dir, chain) = fresh(quiet()).await;
    let body = r#"{"jsonrpc":"2.0","id":1,"method":"eth_chainId"}"#;
    let request = |method: &str, host: &str, kind: &str| {
        let length = body.len();
        format!(
            "{method} / HTTP/1.1\r\nhost: {host}\r\ncontent-type: {kind}\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n{body}"
        )
    };
    for (method, host, kind, status) in [
        ("POST", "127.0.0.1:1", "application/json", 200),
        ("POST", "evil.example:7405", "application/json", 403),
        ("POST", "localhost", "text/plain", 415),
        ("POST", "localhost", "application/x-www-form-urlencoded", 415),
        ("GET", "localhost", "application/json", 405),
        ("OPTIONS", "localhost", "application/json", 405),
    ] {
        let (answered, _) = chain.send(request(method, host, kind).as_bytes()).await;
        assert_eq!(answered, status, "{method} {host} {kind}");
    }
    for garbage in [&b"\0\0\0\0\r\n\r\n"[..], b"GET\r\n\r\n", &[0xff; 4096]] {
        let (status, _) = chain.send(garbage).await;
        assert!(matches!(status, 0 | 400 | 414 | 431), "{status}");
    }
    assert_eq!(chain.height().await, 0, "it still answers");
}
