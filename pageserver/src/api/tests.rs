//! The description of the API against what the code does.

use super::error::ApiError;
use super::route::{self, Found};
use super::types::*;
use super::{OPENAPI, ROUTES, input};
use crate::branches::Refusal;
use crate::metadata::{BranchKind, BranchRecord, BranchState, Record, State, TenantRecord, TenantState};
use ironpage_daemon::http::Method;
use ironpage_layout::{Lsn, NodeId, TenantId, TimelineId};
use serde::Serialize;
use serde_json::Value;
use std::collections::BTreeSet;

fn openapi() -> Value {
    serde_json::from_str(OPENAPI).unwrap()
}

#[test]
fn every_route_is_described_and_every_description_has_a_route() {
    let described: BTreeSet<(String, String)> = openapi()["paths"]
        .as_object()
        .unwrap()
        .iter()
        .flat_map(|(path, item)| {
            let methods = item.as_object().unwrap().keys().filter(|key| *key != "parameters");
            methods.map(|method| (path.clone(), method.to_uppercase())).collect::<Vec<_>>()
        })
        .collect();
    let routed: BTreeSet<_> = ROUTES.iter().map(|route| (route.path.to_string(), route.method.to_string())).collect();
    assert_eq!(described, routed);
    assert_eq!(routed.len(), ROUTES.len());
}

#[test]
fn every_reference_of_the_description_leads_somewhere() {
    fn walk(value: &Value, root: &Value) {
        match value {
            Value::Object(fields) => {
                if let Some(Value::String(reference)) = fields.get("$ref") {
                    assert!(root.pointer(reference.strip_prefix('#').unwrap()).is_some(), "{reference}");
                }
                fields.values().for_each(|value| walk(value, root));
            }
            Value::Array(values) => values.iter().for_each(|value| walk(value, root)),
            _ => {}
        }
    }
    let root = openapi();
    assert_eq!(root["openapi"], "3.1.0");
    walk(&root, &root);
}

/// Checks `value` against the parts of JSON Schema that the description uses.
fn check(value: &Value, schema: &Value, at: &str) {
    let root = openapi();
    let schema = match schema.get("$ref").and_then(Value::as_str) {
        Some(reference) => root.pointer(reference.strip_prefix('#').unwrap()).unwrap(),
        None => schema,
    };
    let types: Vec<&str> = match &schema["type"] {
        Value::String(one) => vec![one],
        Value::Array(all) => all.iter().map(|one| one.as_str().unwrap()).collect(),
        other => panic!("{at}: type {other}"),
    };
    let found = match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(_) => "integer",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    };
    assert!(types.contains(&found), "{at} is {value}, not {types:?}");
    if let (Some(choices), Value::String(_)) = (schema.get("enum").and_then(Value::as_array), value) {
        assert!(choices.contains(value), "{at} is {value}");
    }
    match value {
        Value::Array(values) => values.iter().for_each(|value| check(value, &schema["items"], at)),
        Value::Object(fields) => {
            let properties = schema.get("properties").and_then(Value::as_object);
            for (name, value) in fields {
                match properties.and_then(|properties| properties.get(name)) {
                    Some(schema) => check(value, schema, &format!("{at}.{name}")),
                    None => check(value, &schema["additionalProperties"], &format!("{at}.{name}")),
                }
            }
            for name in schema.get("required").and_then(Value::as_array).into_iter().flatten() {
                assert!(fields.contains_key(name.as_str().unwrap()), "{at} has no {name}");
            }
        }
        _ => {}
    }
}

fn fits(value: &impl Serialize, schema: &str) {
    check(&serde_json::to_value(value).unwrap(), &openapi()["components"]["schemas"][schema], schema);
}

fn branch(number: u8) -> BranchRecord {
    BranchRecord {
        tenant: TenantId([1; 16]),
        timeline: TimelineId([number; 16]),
        name: format!("b{number}"),
        kind: BranchKind::Branch,
        state: BranchState::Active,
        parent: (number > 1).then_some(TimelineId([number - 1; 16])),
        start_lsn: Lsn(24),
        readable_lsn: Lsn(24),
        prev_record_lsn: Lsn(8),
        system_id: u64::MAX,
        postgres_version: 150_018,
        created_at_us: 1,
        expires_at_us: (number > 1).then_some(7),
        safekeepers: vec![NodeId(1)],
    }
}

#[test]
fn answers_have_the_fields_of_their_description() {
    let tenant = TenantRecord { id: TenantId([1; 16]), name: "t".into(), state: TenantState::Active, created_at_us: 1 };
    let records = [Record::Tenant(tenant.clone()), Record::Branch(branch(1)), Record::Branch(branch(2))];
    let state = State::default().with(&records).unwrap();
    let shown = |number| Branch::of(&branch(number), &state, None);
    fits(&Tenant::of(&tenant, &state), "Tenant");
    fits(&Tenants { tenants: vec![Tenant::of(&tenant, &state)] }, "Tenants");
    fits(&shown(1), "Branch");
    fits(&shown(2), "Branch");
    assert_eq!(serde_json::to_value(shown(2)).unwrap()["parent"], "b1");
    assert_eq!(serde_json::to_value(shown(1)).unwrap()["system_id"], u64::MAX.to_string());
    fits(&BranchList { branches: vec![shown(1)] }, "Branches");
    let (lsn, requested_lsn) = ("0/18".to_string(), None);
    fits(
        &BranchCreated { branch: shown(2), requested_lsn: Some("0/19".into()), lsn: lsn.clone(), rounded: true },
        "BranchCreated",
    );
    fits(&BranchReset { branch: shown(2) }, "BranchReset");
    fits(
        &BranchRestored { branch: shown(2), backup: shown(1), requested_lsn, lsn: lsn.clone(), rounded: false },
        "BranchRestored",
    );
    fits(&LsnOfTime { lsn: lsn.clone(), last_commit_timestamp_us: None }, "LsnOfTime");
    fits(&TimeOfLsn { timestamp_us: -1, lsn }, "TimeOfLsn");
    let counters = [("getpages".to_string(), 1)].into();
    fits(&Status { node: 1, version: "0", tenants: 1, branches: 2, metadata_failure: None, counters }, "Status");
    let error = ApiError::BadRequest("why".into()).response();
    check(&serde_json::from_slice(&error.body).unwrap(), &openapi()["components"]["schemas"]["Error"], "Error");
}

#[test]
fn every_refusal_has_a_code_of_the_description() {
    use Refusal::*;
    for refusal in [NotFound, Exists, BadRequest, HasChildren, OutOfRange, Conflict, Unavailable, Internal] {
        let (status, code) = super::error::status_and_code(refusal);
        assert!((400..600).contains(&status));
        let codes = &openapi()["components"]["schemas"]["Error"]["properties"]["error"]["properties"]["code"]["enum"];
        assert!(codes.as_array().unwrap().iter().any(|known| known == code), "{code}");
    }
}

/// What the bodies of requests may hold is what is described, and nothing else is taken.
#[test]
fn requests_have_the_fields_of_their_description() {
    fn takes<T: serde::de::DeserializeOwned>(schema: &str, body: &str) {
        let value: Value = serde_json::from_str(body).unwrap();
        let known = openapi()["components"]["schemas"][schema]["properties"].as_object().unwrap().clone();
        let given: BTreeSet<&String> = value.as_object().unwrap().keys().collect();
        assert_eq!(given, known.keys().collect(), "{schema}");
        input::body::<T>(body.as_bytes()).map(drop).unwrap();
        let mut more = value;
        more["more"] = Value::Bool(true);
        assert!(input::body::<T>(more.to_string().as_bytes()).is_err(), "{schema} takes anything");
    }
    takes::<NewTenant>("NewTenant", r#"{"name":"a","id":"00000000000000000000000000000000"}"#);
    let new = r#"{"name":"a","from":"b","at_lsn":"0/1","at_timestamp_us":1,"ttl_seconds":3,"kind":"branch"}"#;
    takes::<NewBranch>("NewBranch", new);
    takes::<PatchBranch>("PatchBranch", r#"{"name":"a","ttl_seconds":null}"#);
    takes::<ResetBranch>("ResetBranch", r#"{"recursive":true}"#);
    takes::<RestoreBranch>("RestoreBranch", r#"{"at_lsn":"0/1","at_timestamp_us":1}"#);
    takes::<AddSafekeepers>("AddSafekeepers", r#"{"members":[1,2]}"#);
    let patch = |body: &str| input::body::<PatchBranch>(body.as_bytes()).unwrap().ttl_seconds;
    assert_eq!((patch("{}"), patch(r#"{"ttl_seconds":null}"#), patch(r#"{"ttl_seconds":5}"#)), (None, Some(None), Some(Some(5))));
}

#[test]
fn paths_lead_to_their_route_or_to_the_reason_why_not() {
    let find = |method: Method, path: &str| input::path(path).and_then(|path| route::find(&method, &path));
    let Found { names, .. } = find(Method::GET, "/v1/tenants/a%2Fb/branches/%C3%A4").unwrap();
    assert_eq!(names, ["a/b", "ä"]);
    for (method, path, status) in [
        (Method::GET, "/", 404),
        (Method::GET, "/v1/tenants/", 404),
        (Method::GET, "/v1/tenants/a/branches/b/c", 404),
        (Method::GET, "/v1//tenants", 404),
        (Method::PUT, "/v1/tenants", 405),
        (Method::HEAD, "/v1/status", 405),
        (Method::GET, "/v1/%zz", 400),
        (Method::GET, "/v1/%ff", 400),
        (Method::GET, "*", 400),
    ] {
        match find(method.clone(), path) {
            // An empty name is a name, which nobody has.
            Ok(Found { names, .. }) => assert!(status == 404 && names.iter().any(String::is_empty), "{method} {path}"),
            Err(error) => assert_eq!(error.response().status, status, "{method} {path}"),
        }
    }
    let refused = find(Method::PUT, "/v1/tenants").unwrap_err().response();
    assert_eq!(refused.allow.as_deref(), Some("GET, POST"));
}

#[test]
fn queries_are_taken_whole_or_not_at_all() {
    let query = input::Query::parse("lsn=0%2F16B3748&recursive=true").unwrap();
    assert_eq!(query.required::<Lsn>("lsn", "an LSN").unwrap(), Lsn(0x16B_3748));
    assert!(query.flag("recursive").unwrap() && !query.flag("other").unwrap());
    assert!(query.only(&["lsn", "recursive"]).is_ok() && query.only(&["lsn"]).is_err() && query.none().is_err());
    for bad in ["a=1&a=2", "%", "a=%f", "%c3%28=1"] {
        assert!(input::Query::parse(bad).is_err(), "{bad}");
    }
    let query = input::Query::parse("lsn=nonsense&recursive=1").unwrap();
    assert!(query.required::<Lsn>("lsn", "an LSN").is_err() && query.flag("recursive").is_err());
}

#[test]
fn bodies_that_are_none_are_refused_with_the_reason() {
    for body in
        ["", "  ", "{", "[]", "null", "{\"name\":1}", "{\"name\":\"a\"} x", "\u{feff}{}", "{\"name\":\"a\",\"name\":\"b\"}"]
    {
        let error = input::body::<NewTenant>(body.as_bytes()).map(drop).unwrap_err();
        assert!(error.to_string().contains("body"), "{error}");
    }
    assert!(input::body::<NewTenant>(b"\xff{}").is_err());
    let deep = "[".repeat(100_000);
    assert!(input::body::<NewTenant>(deep.as_bytes()).is_err());
}
