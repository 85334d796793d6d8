"""The SPIFFE library: an identity token is a JWT-SVID of the trust domain's bundle, an access token is none.

Reads {issuer, trust_domain, party, access, identity}; answers the SPIFFE ID.
"""

import requests
from ask import answer, question as q, refused
from spiffe import JwtBundle, JwtSvid, TrustDomain
from spiffe.errors import PySpiffeError

text = requests.get(q["issuer"] + "/spiffe/bundle", timeout=10).content
bundle = JwtBundle.parse(TrustDomain(q["trust_domain"]), text)
svid = JwtSvid.parse_and_validate(q["identity"], bundle, {q["party"]})
why = refused(
    "an access token as JWT-SVID",
    lambda: JwtSvid.parse_and_validate(q["access"], bundle, {q["audience"]}),
    PySpiffeError,
)
assert "at+jwt" in why, why
refused(
    "another audience",
    lambda: JwtSvid.parse_and_validate(q["identity"], bundle, {"https://wiki.example.com"}),
    PySpiffeError,
)
answer({"id": str(svid.spiffe_id)})
