//! The tables of the operations: complete, free of contradictions, and true.
//!
//! Each example is sent to a node, and what the node answers is held against the example and
//! against the schema of the answer.

use std::collections::BTreeSet;
use std::sync::Arc;

use axum::body::Body;
use axum::http::Request;
use axum::http::header::CONTENT_TYPE;
use schemars::SchemaGenerator;
use schemars::generate::SchemaSettings;
use serde_json::Value;

use super::rig;
use super::schemas::Schemas;
use crate::http::answer::code::Code;
use crate::http::answer::problem::Problem;
use crate::http::answer::schema::{SchemaOf, schema_of};
use crate::http::answer::text::JSON;
use crate::http::resources::operation::{ApiOperation, COMMON_ERRORS, Example};
use crate::http::resources::{RESOURCES, superseded};
use crate::http::state::App;
use crate::model::NodeId;
use crate::proto::stability::Ledger;
use crate::store::memory::Memory;

fn operations() -> impl Iterator<Item = &'static ApiOperation> {
    RESOURCES.iter().flat_map(|resource| resource.operations.iter().copied())
}

#[test]
fn no_route_and_no_operation_is_there_twice() {
    let templates: BTreeSet<_> = RESOURCES.iter().map(|resource| resource.template).collect();
    let bases: BTreeSet<_> = RESOURCES.iter().map(|resource| resource.base).collect();
    assert_eq!((templates.len(), bases.len()), (RESOURCES.len(), RESOURCES.len()));
    let ids: BTreeSet<_> = operations().map(|operation| operation.id).collect();
    assert_eq!(ids.len(), operations().count());
    for resource in RESOURCES {
        let rest = resource.template.strip_prefix(resource.base).expect("begins with the base");
        assert_eq!(resource.has_rest, rest.starts_with("/{"), "{}", resource.template);
        let verbs: BTreeSet<_> = resource.operations.iter().map(|op| op.verb.name()).collect();
        assert!(!verbs.is_empty() && verbs.len() == resource.operations.len());
    }
}

#[test]
fn every_operation_is_described_in_full() {
    for operation in operations() {
        let id = operation.id;
        let sentence = |text: &str| text.ends_with('.') && text.len() > 6;
        assert!(sentence(operation.summary), "{id}");
        assert!(!operation.answers.is_empty(), "{id}");
        let names: BTreeSet<_> = operation.query.iter().map(|param| param.name()).collect();
        assert_eq!(names.len(), operation.query.len(), "{id}: a parameter twice");
        for param in operation.query {
            let schema = param.schema(&mut SchemaGenerator::default());
            assert!(sentence(param.doc()) && schema != true, "{id}: {}", param.name());
        }
        for header in operation.headers {
            assert!(sentence(header.doc) && !header.name.is_empty(), "{id}: {}", header.name);
        }
        for answer in operation.answers {
            assert!(sentence(answer.when), "{id}: {}", answer.status);
            assert!(answer.status < 400, "{id}: {} is an error", answer.status);
            assert_eq!(answer.schema.is_some(), answer.media_types.iter().any(has_schema), "{id}");
            assert!(answer.headers.iter().all(|header| sentence(header.doc)), "{id}");
        }
        if let Some(body) = &operation.body {
            assert_eq!(body.schema.is_some(), body.media_types.iter().any(has_schema), "{id}");
        }
        let errors: Vec<_> = operation.all_errors().map(|code| code.info().name).collect();
        let distinct: BTreeSet<_> = errors.iter().collect();
        assert_eq!(distinct.len(), errors.len(), "{id}: an error twice in {errors:?}");
    }
}

fn has_schema(media_type: &&str) -> bool {
    *media_type == JSON || media_type.ends_with("ndjson")
}

#[test]
fn every_error_code_belongs_to_an_operation_or_to_the_router() {
    let router = [Code::NoSuchRoute, Code::MethodNotAllowed];
    let declared: Vec<_> = operations().flat_map(ApiOperation::all_errors).chain(router).collect();
    for code in Code::ALL {
        assert!(declared.contains(code), "no operation declares {code:?}");
    }
    assert!(router.iter().all(|code| !COMMON_ERRORS.contains(code)));
}

/// A node with the two keys and the lost write that the examples expect.
async fn node() -> Arc<App> {
    let app = rig::app(Arc::new(Memory::default()), |config| config.clustering_enabled = false);
    for (key, value) in [("app/config", r#"{"a":1}"#), ("app/other", "1")] {
        let mut put = rig::request("PUT", &format!("/kv/{key}"), value);
        put.headers_mut().insert(CONTENT_TYPE, JSON.parse().unwrap());
        assert_eq!(rig::send(&app, put).await.status(), 201);
    }
    superseded::tests::lose(&app, "lost/config", r#"{"a":1}"#, None).await;
    app
}

/// Lets the node have the durable member whose id ends the path.
async fn has_member(app: &App, path: &str) {
    let id = path.rsplit('/').next().and_then(|id| id.parse::<uuid::Uuid>().ok()).unwrap();
    let store = &app.state.store;
    store.found(false).await.unwrap();
    let enter = move |ledger: &mut Ledger, _| {
        let set = ledger.set.as_mut().unwrap();
        let entry = set.joined[&ledger.id];
        set.joined.insert(NodeId::from_bytes(*id.as_bytes()), entry);
    };
    store.change_ledger(enter).await.unwrap();
}

fn request(operation: &ApiOperation) -> Request<Body> {
    let Example { path, headers, body, .. } = operation.example;
    let mut request = rig::request(operation.verb.name(), path, body);
    for (name, value) in headers {
        request.headers_mut().insert(*name, value.parse().unwrap());
    }
    request
}

fn answers_schema(schema: SchemaOf) -> Schemas {
    Schemas::new(SchemaSettings::draft2020_12().for_serialize(), schema)
}

#[tokio::test]
async fn every_example_is_answered_as_it_says() {
    for operation in operations() {
        let (id, example) = (operation.id, &operation.example);
        let app = match id {
            "leave" => {
                rig::app(Arc::new(Memory::default()), |config| config.clustering_enabled = true)
            }
            _ => node().await,
        };
        if id == "forget_member" {
            has_member(&app, example.path).await;
        }
        let response = rig::send(&app, request(operation)).await;
        assert_eq!(response.status(), example.status, "{id}");
        let media_type = response.headers()[CONTENT_TYPE].to_str().unwrap().to_owned();
        let form = operation.answers.iter().find(|answer| {
            answer.status == example.status && answer.media_types.contains(&media_type.as_str())
        });
        let form = form.unwrap_or_else(|| panic!("{id}: no form of {media_type}"));
        let body = rig::body(response).await;
        let Some(schema) = form.schema else {
            let text = String::from_utf8(body.to_vec()).unwrap();
            assert!(text.ends_with(example.answer), "{id}: {text}");
            continue;
        };
        let answer: Value = serde_json::from_slice(&body).unwrap();
        let shown: Value = serde_json::from_str(example.answer).unwrap();
        assert!(alike(&shown, &answer), "{id}: {answer}");
        let schemas = answers_schema(schema);
        assert_eq!(schemas.problem(&answer), None, "{id}: the answer");
        assert_eq!(schemas.problem(&shown), None, "{id}: the example");
    }
}

/// Whether two JSON texts have the same members and types; values may differ.
fn alike(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Object(a), Value::Object(b)) => {
            a.len() == b.len() && a.iter().all(|(name, a)| b.get(name).is_some_and(|b| alike(a, b)))
        }
        (Value::Array(a), Value::Array(b)) => {
            a.len() == b.len() && a.iter().zip(b).all(|(a, b)| alike(a, b))
        }
        (a, b) => std::mem::discriminant(a) == std::mem::discriminant(b),
    }
}

fn body_schema(id: &str) -> Schemas {
    let operation = operations().find(|operation| operation.id == id).expect("a known id");
    let schema = operation.body.as_ref().and_then(|body| body.schema).expect("a JSON body");
    Schemas::new(SchemaSettings::draft2020_12().for_deserialize(), schema)
}

#[tokio::test]
async fn schema_and_parser_of_a_body_agree() {
    for operation in operations() {
        if operation.body.as_ref().is_some_and(|body| body.schema.is_some()) {
            let example: Value = serde_json::from_str(operation.example.body).unwrap();
            assert_eq!(body_schema(operation.id).problem(&example), None, "{}", operation.id);
        }
    }
    let app = node().await;
    for (id, path, body) in [
        ("swap", "/cas/k", r#"{"expected":{"absent":true},"data_base64":"aGk=","x":1}"#),
        ("swap", "/cas/k", r#"{"data":1}"#),
        ("swap", "/cas/k", r#"{"expected":{"absent":true}}"#),
        ("swap", "/cas/k", r#"{"expected":{},"data":1}"#),
        ("swap", "/cas/k", r#"{"expected":{"absent":false},"data":1}"#),
        ("swap", "/cas/k", r#"{"expected":{"absent":true,"exists":true},"data":1}"#),
        ("swap", "/cas/k", r#"{"expected":{"timestamp":-1},"data":1}"#),
        ("swap", "/cas/k", r#"{"expected":{"timestamp":9007199254740992},"data":1}"#),
        ("swap", "/cas/k", r#"{"expected":{"absent":true},"data":1,"delete":true}"#),
        ("swap", "/cas/k", r#"{"expected":{"exists":true},"delete":true,"ttl":"1s"}"#),
        ("swap", "/cas/k", r#"{"expected":{"absent":true},"data":1,"content_type":"a/b"}"#),
        ("swap", "/cas/k", r#"{"expected":{"absent":true},"data":1,"uuid":7}"#),
        ("swap", "/cas/k", r#"{"expected":{"absent":true},"data":1,"ttl":0}"#),
        ("txn", "/txn", r#"{"successes":[]}"#),
        ("txn", "/txn", r#"{"compare":{}}"#),
        ("txn", "/txn", r#"{"compare":[{"key":"k"}]}"#),
        ("txn", "/txn", r#"{"success":[{}]}"#),
        ("txn", "/txn", r#"{"success":[{"get":{"key":"k"},"delete":{"key":"k"}}]}"#),
        ("txn", "/txn", r#"{"success":[{"get":{}}]}"#),
        ("txn", "/txn", r#"{"success":[{"put":{"key":"k"}}]}"#),
        ("txn", "/txn", r#"{"success":[{"put":{"key":"k","data":1,"data_base64":""}}]}"#),
    ] {
        let value = serde_json::from_str(body).unwrap();
        assert!(body_schema(id).problem(&value).is_some(), "the schema takes {body}");
        let status = rig::send(&app, rig::request("POST", path, body)).await.status();
        assert_eq!(status, 400, "the parser takes {body}");
    }
}

#[tokio::test]
async fn refusals_have_the_schema_of_a_problem() {
    let app = node().await;
    let schemas = answers_schema(schema_of::<Problem<'static>>);
    let mut refused = rig::request("PUT", "/kv/app/config", "x");
    refused.headers_mut().insert("if-none-match", "*".parse().unwrap());
    let swap = rig::request("POST", "/cas/none", r#"{"expected":{"exists":true},"data":1}"#);
    for (request, code) in [
        (refused, "precondition_failed"),
        (swap, "precondition_failed"),
        (rig::request("GET", "/nothing", ""), "no_such_route"),
        (rig::request("DELETE", "/scan/app", ""), "method_not_allowed"),
    ] {
        let problem = rig::json(rig::send(&app, request).await).await;
        assert_eq!(problem["code"], code);
        assert_eq!(schemas.problem(&problem), None);
    }
}

#[tokio::test]
async fn bodies_with_conditions_refuse_conditional_headers() {
    let app = node().await;
    for path in ["/cas/k", "/txn"] {
        for header in ["if-match", "if-none-match", "if-unmodified-since", "content-range"] {
            let mut request = rig::request("POST", path, "{}");
            request.headers_mut().insert(header, "*".parse().unwrap());
            assert_eq!(rig::send(&app, request).await.status(), 400, "{path} {header}");
        }
    }
}
