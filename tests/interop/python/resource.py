"""A resource server by Authlib (RFC 9068), and one by PyJWT.

Reads {issuer, audience, scope, access, identity}.
"""

import jwt
import requests
from ask import answer, check, question as q, refused
from authlib.oauth2.rfc6750 import InsufficientScopeError, InvalidTokenError
from authlib.oauth2.rfc9068 import JWTBearerTokenValidator


class Resource(JWTBearerTokenValidator):
    def get_jwks(self):
        response = requests.get(q["issuer"] + "/jwks", timeout=10)
        response.raise_for_status()
        return response.json()


def by_authlib(token, audience, scopes):
    resource = Resource(issuer=q["issuer"], resource_server=audience)
    claims = resource.authenticate_token(token)
    if claims is None:
        raise InvalidTokenError()
    resource.validate_token(claims, scopes, None)
    return claims


def by_pyjwt(token, audience):
    metadata = requests.get(q["issuer"] + "/.well-known/openid-configuration", timeout=10).json()
    key = jwt.PyJWKClient(metadata["jwks_uri"]).get_signing_key_from_jwt(token)
    return jwt.decode(
        token,
        key.key,
        algorithms=metadata["id_token_signing_alg_values_supported"],
        audience=audience,
        issuer=q["issuer"],
        options={"require": ["iss", "sub", "aud", "exp", "iat", "jti"]},
    )


access, identity, audience = q["access"], q["identity"], q["audience"]
other = "https://wiki.example.com"

check(by_authlib(access, audience, [q["scope"]])["scope"] == q["scope"], "Authlib sees the scope")
check(by_pyjwt(access, audience)["scope"] == q["scope"], "PyJWT sees the scope")
check(by_pyjwt(identity, q["party"])["sub"].startswith("spiffe://"), "PyJWT sees who it is")

refused("another audience, Authlib", lambda: by_authlib(access, other, None), InvalidTokenError)
refused("another audience, PyJWT", lambda: by_pyjwt(access, other), jwt.InvalidAudienceError)
refused("too little scope", lambda: by_authlib(access, audience, ["tickets.delete"]), InsufficientScopeError)
refused("an identity token as access token", lambda: by_authlib(identity, q["party"], None), InvalidTokenError)
head, body, signature = access.split(".")
forged = ".".join([head, body, signature[:8] + ("A" if signature[8] != "A" else "B") + signature[9:]])
refused("a forged signature, PyJWT", lambda: by_pyjwt(forged, audience), jwt.InvalidSignatureError)
refused("a forged signature, Authlib", lambda: by_authlib(forged, audience, None), Exception)
answer({})
