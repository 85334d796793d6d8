//! Who made an object, who last changed what it says, and who answers for an agent: written by the API server.
//!
//! Invariant: nobody can write these annotations for another: on CREATE they are set, on UPDATE held. A change that
//! alters neither them nor the spec is not looked at.

use serde_json::Value;

use super::object::{Body, Failure, Policy, leaving, rule, text};
use crate::api::{self, AGENTS_GROUP, AUTHOR_ANNOTATION, EDITED_BY_ANNOTATION, GROUP, ONE_LINE};

/// A JSON pointer's part.
fn pointer(key: &str) -> String {
    key.replace('~', "~0").replace('/', "~1")
}

/// The annotations `agentid.dev/author` and `agentid.dev/edited-by`.
pub(super) fn author() -> Result<Policy, serde_json::Error> {
    let crds = api::crds()?;
    let kinds: Vec<_> = crds.iter().map(|crd| crd.spec.names.plural.as_str()).collect();
    let annotation =
        |object: &str, key: &str| format!("{object}.metadata.?annotations[?{}].orValue('')", text(key));
    let (author, edited) = (AUTHOR_ANNOTATION, EDITED_BY_ANNOTATION);
    let differs = |key| format!("{} != {}", annotation("object", key), annotation("oldObject", key));
    let stamp = |key: &str, want: &str, is: &str| {
        let path = text(&format!("/metadata/annotations/{}", pointer(key)));
        format!(
            "({want} == {is} ? [] : {want} == '' ? [JSONPatch{{op: 'remove', path: {path}}}] : \
             [JSONPatch{{op: 'add', path: {path}, value: {want}}}])"
        )
    };
    Ok(Policy {
        name: "agentid-author",
        description: format!("Writes who created an object of {GROUP} and who last changed its spec."),
        failure: Failure::Fail,
        rules: vec![rule(GROUP, &["CREATE", "UPDATE"], &kinds)],
        selector: None,
        conditions: vec![(
            "says-something-else",
            format!(
                "request.operation == 'CREATE' || object.spec != oldObject.spec || {} || {}",
                differs(author),
                differs(edited)
            ),
        )],
        variables: vec![
            leaving(),
            (
                "author",
                format!(
                    "request.operation == 'CREATE' ? request.userInfo.username : {}",
                    annotation("oldObject", author)
                ),
            ),
            (
                "edited",
                format!(
                    "request.operation == 'CREATE' ? '' : object.spec != oldObject.spec ? \
                     request.userInfo.username : {}",
                    annotation("oldObject", edited)
                ),
            ),
            ("authorNow", annotation("object", author)),
            ("editedNow", annotation("object", edited)),
        ],
        body: Body::Mutate(format!(
            "variables.leaving ? [] :\n(has(object.metadata.annotations) ? [] : \
             [JSONPatch{{op: 'add', path: '/metadata/annotations', value: {{}}}}]) +\n{} +\n{}",
            stamp(author, "variables.author", "variables.authorNow"),
            stamp(edited, "variables.edited", "variables.editedNow"),
        )),
    })
}

/// The creator as an agent's sponsor, where a person names none.
pub(super) fn sponsor() -> Policy {
    let user = "request.userInfo.username";
    let groups = "request.userInfo.?groups.orValue([])";
    Policy {
        name: "agentid-sponsor",
        description: "Records the person who creates an AgentIdentity without sponsors as its sponsor."
            .to_owned(),
        failure: Failure::Ignore,
        rules: vec![rule(GROUP, &["CREATE"], &["agentidentities"])],
        selector: None,
        conditions: vec![
            ("names-no-sponsor", "!has(object.spec.sponsors) || size(object.spec.sponsors) == 0".to_owned()),
            (
                "by-a-person",
                format!("!{user}.startsWith('system:') && !({} in {groups})", text(AGENTS_GROUP)),
            ),
            // The schema would refuse another name, and with it the agent.
            ("whose-name-fits", format!("size({user}) <= 256 && {user}.matches(r'{ONE_LINE}')")),
        ],
        variables: vec![leaving()],
        body: Body::Mutate(format!(
            "variables.leaving ? [] : [JSONPatch{{op: 'add', path: '/spec/sponsors', \
             value: [{{'kind': 'User', 'name': {user}}}]}}]"
        )),
    }
}

/// Both, each a file.
pub(super) fn policies() -> Result<Vec<[Value; 2]>, serde_json::Error> {
    Ok(vec![author()?.objects(), sponsor().objects()])
}
