"""An MCP server that our tokens guard, and the SDK's own client that gets one by discovery and calls a tool.

Reads {issuer, audience, agent, account_token, scope, port}, where audience is http://127.0.0.1:<port>/mcp; answers what
the tool said.
"""

import asyncio
import threading
import time

import httpx2
import jwt
import uvicorn
from ask import answer, check, question as q
from mcp import ClientSession
from mcp.client.auth.extensions.client_credentials import PrivateKeyJWTOAuthProvider, static_assertion_provider
from mcp.client.streamable_http import streamable_http_client
from mcp.server.auth.middleware.auth_context import get_access_token
from mcp.server.auth.provider import AccessToken, TokenVerifier
from mcp.server.auth.settings import AuthSettings
from mcp.server.mcpserver import MCPServer


class Verifier(TokenVerifier):
    keys = jwt.PyJWKClient(q["issuer"] + "/jwks")

    async def verify_token(self, token):
        try:
            key = await asyncio.to_thread(self.keys.get_signing_key_from_jwt, token)
            c = jwt.decode(token, key.key, algorithms=["ES256"], audience=q["audience"], issuer=q["issuer"])
        except jwt.PyJWTError:
            return None
        return AccessToken(
            token=token,
            client_id=c["client_id"],
            scopes=c["scope"].split(),
            expires_at=c["exp"],
            resource=c["aud"],
            subject=c["sub"],
            claims=c,
        )


def serve(scope):
    settings = AuthSettings(
        issuer_url=q["issuer"], resource_server_url=q["audience"], required_scopes=[scope], validate_token_resource=True
    )
    server = MCPServer("tickets", token_verifier=Verifier(), auth=settings)

    @server.tool()
    def whoami() -> str:
        return get_access_token().subject

    app = server.streamable_http_app()
    running = uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=q["port"], log_level="warning"))
    threading.Thread(target=running.run, daemon=True).start()
    while not running.started:
        time.sleep(0.05)


class Storage:
    """Where the SDK's client keeps its tokens."""

    tokens = client = None

    async def get_tokens(self):
        return self.tokens

    async def set_tokens(self, tokens):
        self.tokens = tokens

    async def get_client_info(self):
        return self.client

    async def set_client_info(self, client_info):
        self.client = client_info


async def unauthenticated():
    call = {"jsonrpc": "2.0", "id": 1, "method": "ping"}
    accept = {"accept": "application/json, text/event-stream"}
    async with httpx2.AsyncClient() as http:
        for headers in [accept, accept | {"authorization": "Bearer " + q["account_token"]}]:
            response = await http.post(q["audience"], json=call, headers=headers)
            check(response.status_code == 401, f"it is refused: {response.status_code}")
            challenge = response.headers["www-authenticate"]
            check("resource_metadata=" in challenge, f"the challenge says where to ask: {challenge}")


async def call():
    provider = PrivateKeyJWTOAuthProvider(
        server_url=q["audience"],
        storage=Storage(),
        client_id=q["agent"],
        scope=q["scope"],
        issuer=q["issuer"],
        assertion_provider=static_assertion_provider(q["account_token"]),
    )
    async with (
        httpx2.AsyncClient(auth=provider, timeout=30) as http,
        streamable_http_client(q["audience"], http_client=http) as streams,
        ClientSession(streams[0], streams[1]) as session,
    ):
        await session.initialize()
        result = await session.call_tool("whoami", {})
        check(not getattr(result, "is_error", False), f"the tool answers: {result}")
        return result.content[0].text


async def main():
    serve(q["scope"])
    await unauthenticated()
    answer({"said": await call()})


asyncio.run(asyncio.wait_for(main(), 60))
