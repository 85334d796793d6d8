//! agentid: an identity of its own for every AI agent on Kubernetes.
//!
//! ```text
//!  watches ──► World ──► decide (pure) ──► Plan ──► apply ──► API server
//!  (cluster)   (domain)   (domain)        (domain)  (operator)
//! ```
//!
//! The rooms and what each may use (a test holds every `use crate::` against this table):
//!
//! | room | owns | may use |
//! |---|---|---|
//! | [`api`] | the custom resources | nothing |
//! | [`crypto`] | keys, JWS, JWKS | nothing |
//! | [`net`] | listeners with bounds, TLS, guarded fetches, the admin port | crypto |
//! | [`domain`] | what exists, what is allowed, what must change: pure | api |
//! | [`issue`] | the only place where a decision becomes a token | domain, crypto, api |
//! | [`metrics`] | what both processes count alike, and the text for scrapers | domain, api |
//! | [`cluster`] | the API server: watches, writes, lease, key store | api, domain, crypto |
//! | [`operator`] | the loop | issue, cluster, domain, crypto, api, net, metrics |
//! | [`serve`] | the token service over HTTP | issue, cluster, domain, crypto, api, net, metrics |
//! | [`cli`] | the commands | all |

pub mod api;
pub mod cli;
pub mod cluster;
pub mod crypto;
pub mod domain;
pub mod issue;
pub mod metrics;
pub mod net;
pub mod operator;
pub mod serve;
