// oauth4webapi as an agent and as its resource server: discovery, every grant, introspection, RFC 9068.
//
// Reads {issuer, audience, agent, account_token, asker_token, user_token, scope}; answers the tokens that it got.
import { answer, check, question as q } from './ask.mjs'
import * as oauth from 'oauth4webapi'

const TYPE = 'urn:ietf:params:oauth:token-type:'
const GRANT = 'urn:ietf:params:oauth:grant-type:'

// A projected service-account token in place of an assertion that the client itself signs.
const by = (token) => (_as, client, body) => {
  body.set('client_id', client.client_id)
  body.set('client_assertion', token)
  body.set('client_assertion_type', 'urn:ietf:params:oauth:client-assertion-type:jwt-bearer')
}
const bare = (token) => (_as, _client, body) => {
  body.set('client_assertion', token)
  body.set('client_assertion_type', 'urn:ietf:params:oauth:client-assertion-type:jwt-bearer')
}

const issuer = new URL(q.issuer)
for (const algorithm of ['oidc', 'oauth2']) {
  const found = await oauth.processDiscoveryResponse(issuer, await oauth.discoveryRequest(issuer, { algorithm }))
  check(found.token_endpoint === `${q.issuer}/token`, `${algorithm} names the token endpoint`)
}
const as = await oauth.processDiscoveryResponse(
  issuer,
  await oauth.discoveryRequest(issuer, { algorithm: 'oauth2' }),
)
const client = { client_id: q.agent }
const wish = { resource: q.audience, scope: q.scope }

const presented = (token) => new Request(q.audience, { headers: { authorization: `Bearer ${token}` } })
const accepted = (token) => oauth.validateJwtAccessToken(as, presented(token), q.audience)

let response = await oauth.clientCredentialsGrantRequest(as, client, by(q.account_token), wish)
const own = await oauth.processClientCredentialsResponse(as, client, response)
check(own.token_type === 'bearer' && own.scope === q.scope, 'client_credentials gives the scope')
let claims = await accepted(own.access_token)
check(claims.sub === q.agent && claims.client_id === q.agent, 'the token is of the agent')

response = await oauth.genericTokenEndpointRequest(as, client, oauth.None(), `${GRANT}jwt-bearer`, {
  assertion: q.account_token,
  ...wish,
})
const assertion = await oauth.processGenericTokenEndpointResponse(as, client, response)
claims = await accepted(assertion.access_token)
check(claims.sub === q.agent, 'jwt-bearer gives a token of the agent')

response = await oauth.genericTokenEndpointRequest(as, client, oauth.None(), `${GRANT}token-exchange`, {
  subject_token: q.user_token,
  subject_token_type: `${TYPE}access_token`,
  actor_token: q.account_token,
  actor_token_type: `${TYPE}jwt`,
  ...wish,
})
const delegated = await oauth.processGenericTokenEndpointResponse(as, client, response)
check(delegated.issued_token_type === `${TYPE}access_token`, 'the exchange says what it issued')
claims = await accepted(delegated.access_token)
check(claims.sub !== q.agent && claims.act?.sub === q.agent, 'the exchanged token is of the user, by the agent')

response = await oauth.genericTokenEndpointRequest(as, client, oauth.None(), `${GRANT}token-exchange`, {
  subject_token: q.account_token,
  subject_token_type: `${TYPE}jwt`,
  actor_token: q.account_token,
  actor_token_type: `${TYPE}jwt`,
  requested_token_type: `${TYPE}jwt`,
  audience: q.party,
})
const identity = await oauth.processGenericTokenEndpointResponse(as, client, response, {
  recognizedTokenTypes: { n_a: () => {} },
})
check(identity.issued_token_type === `${TYPE}jwt`, 'the exchange says that it issued an identity token')

for (const token of [own.access_token, delegated.access_token]) {
  response = await oauth.introspectionRequest(as, client, bare(q.asker_token), token)
  const told = await oauth.processIntrospectionResponse(as, client, response)
  check(told.active === true && told.scope === q.scope, 'introspection calls the token active')
}
response = await oauth.introspectionRequest(as, client, bare(q.stranger_token), own.access_token)
const untold = await oauth.processIntrospectionResponse(as, client, response)
check(untold.active === false && untold.scope === undefined, 'introspection tells a stranger nothing')

// What must fail, does.
async function refused(what, attempt, test) {
  let error
  try {
    await attempt()
  } catch (e) {
    error = e
  }
  check(error && test(error), `${what}: ${error}`)
}
await refused(
  'another audience',
  () => oauth.validateJwtAccessToken(as, presented(own.access_token), 'https://wiki.example.com'),
  (e) => String(e).includes('aud'),
)
await refused('an identity token as access token', () => accepted(identity.access_token), (e) => String(e).includes('typ'))
await refused(
  'a made-up assertion',
  async () => {
    const r = await oauth.clientCredentialsGrantRequest(as, client, by('a.b.c'), wish)
    await oauth.processClientCredentialsResponse(as, client, r)
  },
  (e) => e instanceof oauth.ResponseBodyError && e.status === 401 && e.error === 'invalid_client',
)
await refused(
  'a token that is revoked singly',
  async () => {
    const r = await oauth.revocationRequest(as, client, oauth.None(), own.access_token)
    await oauth.processRevocationResponse(r)
  },
  (e) => e instanceof oauth.ResponseBodyError && e.error === 'unsupported_token_type',
)

answer({ own: own.access_token, delegated: delegated.access_token, identity: identity.access_token })
