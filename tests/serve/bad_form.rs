//! Requests that are refused, each with its status and code (RFC 6749 §5.2 and what the profiles add).

use serde_json::{Value, json};

use crate::bad_kit::{FORM, post, send, tells_nothing};
use crate::kit::*;

type Pairs<'a> = Vec<(&'a str, &'a str)>;

struct Row<'a>(&'static str, Pairs<'a>, u16, &'static str);

fn with<'a>(form: &[(&'a str, &'a str)], more: &[(&'a str, &'a str)]) -> Pairs<'a> {
    form.iter().chain(more).copied().collect()
}

/// What is asked by whom, in which form and with which headers, and the status and code of the answer.
type HeadedRow<'a> = (&'a str, &'a str, &'a [(&'a str, &'a str)], &'a [(&'a str, &'a str)], u16, &'a str);

#[tokio::test(flavor = "multi_thread")]
async fn bad_methods_and_media_types_are_named() {
    let t = Test::bare("bad-http").await;
    let body = "grant_type=client_credentials&token=x";
    for path in ["/token", "/introspect", "/revoke", "/credentials"] {
        for kind in ["application/json", "multipart/form-data; boundary=x", "text/plain", ""] {
            let answer = send(t.service(), "POST", path, &[("content-type", kind)], body).await;
            answer.is_refused(&format!("{path} {kind}"), 415, "invalid_request");
        }
        let twice = [("content-type", FORM), ("content-type", FORM)];
        send(t.service(), "POST", path, &twice, body).await.is_refused(path, 415, "invalid_request");
        send(t.service(), "POST", path, &[], body).await.is_refused(path, 415, "invalid_request");
        for method in ["GET", "PUT", "DELETE", "PATCH"] {
            let answer = send(t.service(), method, path, &[], "").await;
            answer.is_refused(&format!("{method} {path}"), 405, "invalid_request");
        }
        let answer = send(t.service(), "PUT", path, &[("content-type", FORM)], body).await;
        answer.is_refused(&format!("PUT {path} with a body"), 405, "invalid_request");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_token_requests_are_refused_by_the_table() {
    let t = Test::new("bad-form").await;
    let good = t.token(&[]).await;
    for name in ["b", "gone"] {
        t.apply(&format!(
            "{{apiVersion: agentid.dev/v1alpha1, kind: AgentIdentity, metadata: {{name: {name}}}, \
             spec: {{serviceAccountName: {name}}}}}"
        ))
        .await;
        t.account(name).await;
    }
    t.apply(
        "{apiVersion: agentid.dev/v1alpha1, kind: AgentResource, metadata: {name: $NS-other}, \
         spec: {audience: \"https://$NS.other.example.com\", scopes: [{name: x}]}}",
    )
    .await;
    t.pod("ended", "runner").await;
    t.pod("lost", "gone").await;
    t.pod("strange", "stranger").await;
    let issuer = t.stage.town.issuer.clone();
    let (sa, aud) = (t.sa_token().await, t.aud());
    let wrong_aud = t.sa_token_for("runner", Some("p"), "https://elsewhere.example.com").await;
    let unbound = t.sa_token_for("runner", None, &issuer).await;
    let stranger = t.sa_token_for("stranger", Some("strange"), &issuer).await;
    let ended = t.sa_token_for("runner", Some("ended"), &issuer).await;
    let lost = t.sa_token_for("gone", Some("lost"), &issuer).await;
    t.end_pod("ended").await;
    t.delete("{apiVersion: v1, kind: ServiceAccount, metadata: {name: gone}}").await;
    let idp = &t.stage.idp;
    let eve = idp.token("eve", &issuer, 300, json!({}));
    let expired = idp.token("eve", &issuer, -1, json!({}));
    let astray = idp.token("eve", "another-app", 300, json!({}));
    let foreign = idp.token("eve", &issuer, 300, json!({"iss": "https://idp.example.com"}));
    let me = t.agent_id("a").await;
    let delegated = idp.token("eve", &me, 300, json!({}));
    let (b, a) = (t.fill("$NS/b"), t.fill("$NS/a"));
    let many = "x ".repeat(200);
    let other = t.fill("https://$NS.other.example.com");
    let fragment = format!("{aud}#top");
    let long = "x".repeat(10_000);

    let bearer = [("client_assertion_type", JWT_BEARER_ASSERTION), ("client_assertion", sa.as_str())];
    let cc = with(&[("grant_type", "client_credentials")], &bearer);
    let client = |token| {
        vec![
            ("grant_type", "client_credentials"),
            ("client_assertion_type", JWT_BEARER_ASSERTION),
            ("client_assertion", token),
        ]
    };
    let exchange = with(
        &[("grant_type", EXCHANGE), ("subject_token", &delegated), ("subject_token_type", JWT)],
        &bearer,
    );
    let of_subject = |token| {
        with(&[("grant_type", EXCHANGE), ("subject_token", token), ("subject_token_type", JWT)], &bearer)
    };
    let laptop = |token| vec![("grant_type", JWT_BEARER), ("assertion", token), ("client_id", a.as_str())];
    let (request, target) = ("invalid_request", "invalid_target");
    let rows = [
        Row("nothing", vec![], 400, request),
        Row("no grant_type", bearer.to_vec(), 400, request),
        Row("empty grant_type", with(&bearer, &[("grant_type", "")]), 400, request),
        Row("repeated grant_type", with(&cc, &[("grant_type", "client_credentials")]), 400, request),
        Row("repeated scope", with(&cc, &[("scope", "a"), ("scope", "a")]), 400, request),
        Row("repeated resource", with(&cc, &[("resource", &aud), ("resource", &other)]), 400, request),
        Row("repeated unknown", with(&cc, &[("x", "1"), ("x", "")]), 400, request),
        Row("assertion without type", vec![cc[0], cc[2]], 400, request),
        Row("type without assertion", vec![cc[0], cc[1]], 400, request),
        Row("client_secret too", with(&cc, &[("client_secret", "s")]), 400, request),
        Row("client_secret", vec![cc[0], ("client_id", "x"), ("client_secret", "s")], 400, request),
        Row(
            "authorization_code",
            with(&bearer, &[("grant_type", "authorization_code")]),
            400,
            "unsupported_grant_type",
        ),
        Row("an endless grant_type", with(&bearer, &[("grant_type", &long)]), 400, "unsupported_grant_type"),
        Row("no assertion", vec![cc[0]], 401, "invalid_client"),
        Row("no JWT", client("abc"), 401, "invalid_client"),
        Row(
            "SAML",
            vec![
                cc[0],
                cc[2],
                ("client_assertion_type", "urn:ietf:params:oauth:client-assertion-type:saml2-bearer"),
            ],
            401,
            "invalid_client",
        ),
        Row("wrong aud", client(&wrong_aud), 401, "invalid_client"),
        Row("bound to no pod", client(&unbound), 401, "invalid_client"),
        Row("an account of no agent", client(&stranger), 401, "invalid_client"),
        Row("pod that ended", client(&ended), 401, "invalid_client"),
        Row("account that is gone", client(&lost), 401, "invalid_client"),
        Row("a user's token", client(&eve), 401, "invalid_client"),
        Row("our access token", client(&good), 401, "invalid_client"),
        Row("another agent by name", with(&cc, &[("client_id", &b)]), 401, "invalid_client"),
        Row("a client_id of no form", with(&cc, &[("client_id", "../../a b")]), 401, "invalid_client"),
        Row("fragment", with(&cc, &[("resource", &fragment)]), 400, target),
        Row("relative", with(&cc, &[("resource", "tickets")]), 400, target),
        Row("unknown resource", with(&cc, &[("resource", "https://nobody.example.com")]), 400, target),
        Row("unknown audience", with(&cc, &[("audience", "nobody")]), 400, target),
        Row("two targets", with(&cc, &[("resource", &aud), ("audience", &other)]), 400, target),
        Row("not granted", with(&cc, &[("resource", &other)]), 400, target),
        Row("unknown grant", with(&cc, &[("resource", &aud), ("grant", "none")]), 400, target),
        Row("endless resource", with(&cc, &[("resource", &long)]), 400, target),
        Row("unknown scope", with(&cc, &[("resource", &aud), ("scope", "root")]), 400, "invalid_scope"),
        Row(
            "scope not granted",
            with(&cc, &[("resource", &aud), ("scope", "tickets.write")]),
            400,
            "invalid_scope",
        ),
        Row("no scope-token", with(&cc, &[("resource", &aud), ("scope", "a\"b")]), 400, "invalid_scope"),
        Row("a newline in scope", with(&cc, &[("resource", &aud), ("scope", "a\nb")]), 400, "invalid_scope"),
        Row("too many scopes: one", with(&cc, &[("resource", &aud), ("scope", &many)]), 400, "invalid_scope"),
        Row("no subject_token", with(&exchange[..1], &exchange[2..]), 400, request),
        Row("no subject_token_type", with(&exchange[..2], &exchange[3..]), 400, request),
        Row(
            "SAML subject",
            with(
                &with(&exchange[..2], &bearer),
                &[("subject_token_type", "urn:ietf:params:oauth:token-type:saml2")],
            ),
            400,
            request,
        ),
        Row(
            "refresh token wished",
            with(&exchange, &[("requested_token_type", "urn:ietf:params:oauth:token-type:refresh_token")]),
            400,
            request,
        ),
        Row(
            "ID-JAG wished",
            with(&exchange, &[("requested_token_type", "urn:ietf:params:oauth:token-type:id-jag")]),
            400,
            request,
        ),
        Row("actor without type", with(&exchange[..3], &[("actor_token", &sa)]), 400, request),
        Row("type without actor", with(&exchange[..3], &[("actor_token_type", JWT)]), 400, request),
        Row(
            "actor of another type",
            with(&exchange[..3], &[("actor_token", &sa), ("actor_token_type", ACCESS)]),
            400,
            request,
        ),
        Row(
            "actor and client",
            with(&exchange, &[("actor_token", &sa), ("actor_token_type", JWT)]),
            400,
            request,
        ),
        Row("nobody acts", exchange[..3].to_vec(), 401, "invalid_client"),
        Row(
            "bad actor",
            with(&exchange[..3], &[("actor_token", &wrong_aud), ("actor_token_type", JWT)]),
            400,
            request,
        ),
        Row("expired subject", of_subject(&expired), 400, request),
        Row("subject for another app", of_subject(&astray), 400, request),
        Row("subject not for the agent", of_subject(&eve), 400, request),
        Row("subject of a stranger", of_subject(&foreign), 400, request),
        Row("subject for no agent's resource", of_subject(&good), 400, request),
        Row("no JWT as subject", of_subject("a.b.c"), 400, request),
        Row("no assertion for jwt-bearer", vec![("grant_type", JWT_BEARER)], 400, request),
        Row("jwt-bearer with client", with(&laptop(&eve), &bearer), 400, request),
        Row("may not run", laptop(&eve), 400, "unauthorized_client"),
        Row("expired assertion", laptop(&expired), 400, "invalid_grant"),
        Row("assertion for another app", laptop(&astray), 400, "invalid_grant"),
        Row("assertion of a stranger", laptop(&foreign), 400, "invalid_grant"),
        Row(
            "pod that ended asserts",
            vec![("grant_type", JWT_BEARER), ("assertion", &ended)],
            400,
            "invalid_grant",
        ),
    ];
    let all = [
        &*sa, &good, &wrong_aud, &unbound, &ended, &lost, &stranger, &eve, &expired, &astray, &foreign,
        &delegated,
    ];
    // Until the ends have come through the watches.
    for (token, what) in [(&ended, "pod"), (&lost, "account")] {
        crate::common::eventually(format!("the {what} is gone"), SOON, || async {
            let answer = post(t.service(), "/token", &[], &client(token)).await;
            if answer.status == 401 { Ok(()) } else { Err(answer) }
        })
        .await;
    }
    for Row(name, form, status, code) in rows {
        let answer = post(t.service(), "/token", &[], &form).await;
        answer.is_refused(name, status, code);
        assert!(answer.json()["error_description"].as_str().unwrap().len() <= 500, "{name}");
        tells_nothing(name, &format!("{answer:?}"), &all);
    }
    for (name, token) in [("wrong aud", &wrong_aud), ("an account of no agent", &stranger), ("ended", &ended)]
    {
        let answer = post(t.service(), "/credentials", &[], &client(token)).await;
        answer.is_refused(&format!("/credentials: {name}"), 401, "invalid_client");
    }
    tells_nothing("the log", &t.service().log_text(), &all);
    // Every refusal of somebody who is known left a line.
    let lines = t.audit().into_iter().filter(|l| l.action == agentid::issue::Action::Refuse).count();
    assert!(lines >= 12, "{lines} lines of refusals");
    let (status, body) = t.ask(&sa, &[("resource", &aud)]).await;
    assert_eq!(status, 200, "what is good is still taken: {body}");
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_headers_are_challenged() {
    let t = Test::new("bad-auth").await;
    let good = t.token(&[]).await;
    let sa = t.sa_token().await;
    let (bearer, twice) = (format!("Bearer {sa}"), format!("Bearer {good}"));
    let cc = [("grant_type", "client_credentials")];
    let client = [("client_assertion_type", JWT_BEARER_ASSERTION), ("client_assertion", sa.as_str())];
    let token = [("token", good.as_str())];
    let basic = [("authorization", "Basic YTpi")];
    let by_header = [("authorization", bearer.as_str())];
    let (asked, both) = (with(&cc, &client), with(&token, &client));
    let rows: &[HeadedRow<'_>] = &[
        ("basic", "/token", &basic, &cc, 401, "invalid_client"),
        ("bearer", "/token", &by_header, &cc, 401, "invalid_client"),
        ("basic and assertion", "/token", &basic, &asked, 400, "invalid_request"),
        ("basic", "/credentials", &basic, &[], 401, "invalid_client"),
        ("basic", "/introspect", &basic, &token, 401, "invalid_client"),
        ("our own token", "/introspect", &[("authorization", &twice)], &token, 401, "invalid_client"),
        ("junk", "/introspect", &[("authorization", "Bearer x")], &token, 401, "invalid_client"),
        ("nobody", "/introspect", &[], &token, 401, "invalid_client"),
        ("header and assertion", "/introspect", &by_header, &both, 400, "invalid_request"),
        ("two headers", "/introspect", &[by_header[0], basic[0]], &token, 400, "invalid_request"),
        ("no token", "/introspect", &by_header, &[], 400, "invalid_request"),
        ("a token", "/revoke", &[], &token, 400, "unsupported_token_type"),
        ("no token", "/revoke", &[], &[], 400, "invalid_request"),
        ("nobody", "/credentials", &[], &[], 401, "invalid_client"),
    ];
    for (name, path, headers, form, status, code) in rows {
        let name = format!("{path}: {name}");
        let answer = post(t.service(), path, headers, form).await;
        answer.is_refused(&name, *status, code);
        let challenged = answer.headers.contains_key("www-authenticate");
        let wanted = *status == 401 && (!headers.is_empty() || *path == "/introspect");
        assert_eq!(challenged, wanted, "{name}: {answer:?}");
        tells_nothing(&name, &format!("{answer:?}"), &[&sa, &good]);
    }
    let answer = post(t.service(), "/introspect", &by_header, &token).await;
    assert_eq!((answer.status, &answer.json()["active"]), (200, &Value::Bool(true)), "{answer:?}");
    tells_nothing("the log", &t.service().log_text(), &[&sa, &good]);
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_standing_refuses_at_once() {
    let t = Test::new("bad-state").await;
    let good = t.token(&[]).await;
    let sa = t.sa_token().await;
    let form = [
        ("grant_type", "client_credentials"),
        ("client_assertion_type", JWT_BEARER_ASSERTION),
        ("client_assertion", sa.as_str()),
    ];
    t.suspend("a", true).await;
    t.is_active(&good, false).await;
    let answer = post(t.service(), "/token", &[], &form).await;
    answer.is_refused("suspended", 401, "invalid_client");
    t.suspend("a", false).await;
    t.token(&[]).await;
    t.delete_agent("a").await;
    t.is_active(&good, false).await;
    let answer = post(t.service(), "/token", &[], &form).await;
    answer.is_refused("deleted", 401, "invalid_client");
}
