use super::*;
use std::io::{Read, Write};
use std::net::TcpListener;

const BRANCH: &str = r#"{"id":"0102030405060708090a0b0c0d0e0f10","tenant":"main","name":"dev","kind":"branch","parent":"main",
    "parent_id":"1102030405060708090a0b0c0d0e0f10","parent_lsn":"0/1500028","start_lsn":"0/1500028","readable_lsn":"0/1500028",
    "prev_record_lsn":"0/1500000","state":"active","system_id":"18446744073709551615","postgres_version":150020,"created_at_us":5,
    "expires_at_us":null,"safekeepers":[1,3],"last_record_lsn":"0/1500028","disk_consistent_lsn":"0/1500028","logical_size":9,
    "stopped":null,"of_a_later_release":1}"#;

/// Answers one request with `answer`, as it stands; the request comes back.
fn pageserver(answer: String) -> (Api, std::thread::JoinHandle<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let asked = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut request = Vec::new();
        loop {
            let mut bytes = [0; 4096];
            let length = stream.read(&mut bytes).unwrap();
            request.extend_from_slice(&bytes[..length]);
            let text = String::from_utf8_lossy(&request).into_owned();
            let body = text.split_once("\r\n\r\n").map(|(_, body)| body.len());
            let announced = text
                .to_lowercase()
                .split_once("content-length: ")
                .map_or(0, |(_, rest)| rest.split("\r\n").next().unwrap().parse().unwrap());
            if length == 0 || body == Some(announced) {
                break;
            }
        }
        stream.write_all(answer.as_bytes()).unwrap();
        String::from_utf8(request).unwrap()
    });
    (Api::with_patience(Peer { name: "pageserver-1".into(), address }, Duration::from_secs(5)), asked)
}

fn response(status: &str, body: &str) -> String {
    format!("HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}", body.len())
}

#[test]
fn a_create_says_where_it_branched() {
    let body = format!(r#"{{"branch":{BRANCH},"requested_lsn":"0/1500030","lsn":"0/1500028","rounded":true}}"#);
    let (api, asked) = pageserver(response("201 Created", &body));
    let new = NewBranch {
        name: "dev".into(),
        from: "main".into(),
        at: Some(At::Lsn(Lsn(0x1500030))),
        ttl_seconds: Some(60),
        kind: Kind::Branch,
    };
    let created = api.create_branch("main", &new).unwrap();
    assert!(created.rounded);
    assert_eq!((created.lsn, created.requested_lsn), (Lsn(0x1500028), Some(Lsn(0x1500030))));
    assert_eq!((created.branch.system_id, created.branch.safekeepers.as_slice()), (u64::MAX, [1, 3].as_slice()));
    let asked = asked.join().unwrap();
    assert!(asked.starts_with("POST /v1/tenants/main/branches HTTP/1.1\r\n"), "{asked}");
    let body: Value = serde_json::from_str(asked.split_once("\r\n\r\n").unwrap().1).unwrap();
    let wanted = json!({"name": "dev", "from": "main", "at_lsn": "0/1500030", "ttl_seconds": 60, "kind": "branch"});
    assert_eq!(body, wanted);
}

#[test]
fn what_is_not_asked_for_is_not_sent() {
    let new = NewBranch { name: "b".into(), from: "main".into(), at: None, ttl_seconds: None, kind: Kind::Snapshot };
    assert_eq!(to_json(&new).unwrap(), json!({"name": "b", "from": "main", "kind": "snapshot"}));
    assert_eq!(to_json(&At::TimestampUs(-1)).unwrap(), json!({"at_timestamp_us": -1}));
}

#[test]
fn a_refusal_keeps_its_code_and_its_words() {
    let body = r#"{"error":{"code":"has_children","message":"branch 'dev' has children: 'a', 'b'"}}"#;
    let (api, asked) = pageserver(response("409 Conflict", body));
    let error = api.delete_branch("main", "dev", Reach::Recursive).unwrap_err();
    assert!(matches!(error, Error::Api { code: ApiCode::HasChildren, .. }), "{error:?}");
    assert_eq!(error.to_string(), "branch 'dev' has children: 'a', 'b'");
    assert!(asked.join().unwrap().starts_with("DELETE /v1/tenants/main/branches/dev?recursive=true HTTP/1.1\r\n"));

    let (api, _) = pageserver(response("404 Not Found", r#"{"error":{"code":"not_found","message":"no"}}"#));
    assert_eq!(api.find_branch("main", "x").unwrap(), None);
    let (api, _) = pageserver(response("418 Teapot", r#"{"error":{"code":"of_a_later_release","message":"no"}}"#));
    assert!(matches!(api.branch("main", "x"), Err(Error::Api { code: ApiCode::Other, .. })));
}

#[test]
fn what_is_no_answer_names_the_pageserver_the_request_and_the_way_out() {
    let cases = [
        (response("200 OK", "<html>"), "'<html>'"),
        (response("500 Oops", "<html>\n"), "status 500 with '<html> '"),
        (response("200 OK", ""), "nothing"),
        ("SSH-2.0-OpenSSH_9.2\r\n".into(), "GET /v1/tenants"),
        (String::new(), "GET /v1/tenants"),
    ];
    for (answer, wanted) in cases {
        let (api, _) = pageserver(answer);
        let error = api.tenants().unwrap_err().to_string();
        assert!(error.contains(wanted) && error.contains("pageserver-1 (127.0.0.1:"), "{error}");
    }
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let api = Api::new(Peer { name: "pageserver-1".into(), address: free });
    let error = api.tenant("main").unwrap_err();
    assert!(matches!(error, Error::ApiUnreachable { .. }), "{error:?}");
    let error = error.to_string();
    assert!(error.contains("GET /v1/tenants/main") && error.contains("refused") && error.contains("ironpage up"), "{error}");
}

#[test]
fn names_stay_what_they_are_in_a_path() {
    assert_eq!(branch_path("main", "a-B_9"), "/v1/tenants/main/branches/a-B_9");
    assert_eq!(branch_path("ä", "../x?y#z%"), "/v1/tenants/%C3%A4/branches/%2E%2E%2Fx%3Fy%23z%25");
}
