// @sd-jwt/jwt-status-list reads the status of a token, and jose verifies list and token.
//
// Reads {issuer, audience, token}; answers {status, ttl}.
import { answer, check, question as q } from './ask.mjs'
import { getListFromStatusListJWT, getStatusListFromJWT } from '@sd-jwt/jwt-status-list'
import { createRemoteJWKSet, jwtVerify } from 'jose'

const keys = createRemoteJWKSet(new URL(`${q.issuer}/jwks`))
await jwtVerify(q.token, keys, { issuer: q.issuer, audience: q.audience, typ: 'at+jwt', algorithms: ['ES256'] })
const { idx, uri } = getStatusListFromJWT(q.token)
const response = await fetch(uri, { headers: { accept: 'application/statuslist+jwt' } })
check(response.status === 200, `the list is there: ${response.status}`)
const type = response.headers.get('content-type')
check(type === 'application/statuslist+jwt', `its media type is the draft's: ${type}`)
const list = await response.text()
const { payload } = await jwtVerify(list, keys, { typ: 'statuslist+jwt', algorithms: ['ES256'] })
check(payload.sub === uri, 'the list is the one that was asked for')
answer({ status: getListFromStatusListJWT(list).getStatus(idx), ttl: payload.ttl })
