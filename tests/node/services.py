#!/usr/bin/env python3
"""What kube-proxy and a cluster's DNS do, as small as a test node needs it: Services get their addresses and names.

For each TCP port of each Service with a ClusterIP it listens on that address, which it adds to the pods' bridge, and
hands connections to a ready endpoint; `kubernetes` leads to the API server. By UDP it answers for
<service>.<namespace>.svc.cluster.local. It looks twice a second.

Invariants: nothing outside the bridge's addresses is listened on; a name or an endpoint that is gone is not answered
for longer than a look lasts.
"""

import argparse
import asyncio
import http.client
import ipaddress
import json
import random
import ssl
import struct
import subprocess
import sys

PAUSE, PATIENCE = 0.5, 5
DOMAIN = "svc.cluster.local"
NO_ERROR, NO_SUCH_NAME = 0, 3
TYPE_A, CLASS_IN = 1, 1


class Api:
    """GET requests as a cluster administrator."""

    def __init__(self, address, pki):
        self.address = address
        self.tls = ssl.create_default_context(cafile=f"{pki}/ca.crt")
        self.tls.load_cert_chain(f"{pki}/admin.crt", f"{pki}/admin.key")
        self.connection = None

    def items(self, path):
        try:
            if self.connection is None:
                host, port = self.address
                self.connection = http.client.HTTPSConnection(host, port, timeout=PATIENCE, context=self.tls)
            self.connection.request("GET", path)
            answer = self.connection.getresponse()
            body = answer.read()
            if answer.status != 200:
                raise OSError(f"{path}: {answer.status}")
            return json.loads(body)["items"]
        except (OSError, http.client.HTTPException):
            self.connection = None
            raise


def picture(services, slices, api):
    """The backends by (address, port), and the addresses by name."""
    ready = {}
    for piece in slices:
        owner = (piece["metadata"]["namespace"], piece["metadata"].get("labels", {}).get("kubernetes.io/service-name"))
        addresses = [
            address
            for endpoint in piece.get("endpoints") or []
            if endpoint.get("conditions", {}).get("ready") is not False
            for address in endpoint["addresses"]
        ]
        for port in piece.get("ports") or []:
            there = ready.setdefault((*owner, port.get("name") or ""), [])
            there.extend((address, port["port"]) for address in addresses)
    backends, names = {}, {}
    for service in services:
        name, namespace = service["metadata"]["name"], service["metadata"]["namespace"]
        address = service["spec"].get("clusterIP", "")
        if not address or address == "None":
            continue
        names[f"{name}.{namespace}.{DOMAIN}"] = address
        for port in service["spec"].get("ports") or []:
            if port.get("protocol", "TCP") == "TCP":
                own = (namespace, name) == ("default", "kubernetes")
                there = [api] if own else ready.get((namespace, name, port.get("name") or ""), [])
                backends[address, port["port"]] = there
    return backends, names


async def pump(reader, writer):
    try:
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
        if writer.can_write_eof():
            writer.write_eof()
    except OSError:
        writer.close()


class Proxy:
    """The listeners."""

    def __init__(self, device):
        self.device = device
        self.backends, self.names, self.servers, self.addresses = {}, {}, {}, set()

    def own(self, address):
        if address not in self.addresses:
            subprocess.run(["ip", "address", "replace", f"{address}/32", "dev", self.device], check=True)
            self.addresses.add(address)

    async def show(self, backends, names):
        self.backends, self.names = backends, names
        for at in set(self.servers) - set(backends):
            self.servers.pop(at).close()
            print(f"{at[0]}:{at[1]} is gone", flush=True)
        for at in set(backends) - set(self.servers):
            self.own(at[0])
            self.servers[at] = await asyncio.start_server(lambda r, w, at=at: self.serve(at, r, w), *at)
            print(f"{at[0]}:{at[1]} leads to {backends[at]}", flush=True)

    async def serve(self, at, reader, writer):
        choice = list(self.backends.get(at, []))
        random.shuffle(choice)
        for backend in choice:
            try:
                far_reader, far_writer = await asyncio.wait_for(asyncio.open_connection(*backend), PATIENCE)
                break
            except (OSError, asyncio.TimeoutError) as error:
                print(f"{at[0]}:{at[1]}: {backend}: {error!r}", flush=True)
        else:
            writer.transport.abort()
            return
        try:
            await asyncio.gather(pump(reader, far_writer), pump(far_reader, writer))
        finally:
            far_writer.close()
            writer.close()


class Names(asyncio.DatagramProtocol):
    """DNS (RFC 1035): one question, answered by one address or by that there is none."""

    def __init__(self, proxy):
        self.proxy = proxy
        self.transport = None

    def connection_made(self, transport):
        self.transport = transport

    def datagram_received(self, data, addr):
        try:
            labels, at = [], 12
            while length := data[at]:
                labels.append(data[at + 1 : at + 1 + length].decode("ascii").lower())
                at += 1 + length
            question = data[12 : at + 5]
            kind, family = struct.unpack_from("!HH", data, at + 1)
        except (IndexError, struct.error, UnicodeDecodeError):
            return
        address = self.proxy.names.get(".".join(labels))
        answer = b""
        if address and (kind, family) == (TYPE_A, CLASS_IN):
            # The name is that of the question, at byte 12.
            answer = struct.pack("!HHHIH", 0xC00C, kind, family, 5, 4) + ipaddress.IPv4Address(address).packed
        # A response, authoritative, recursion available as stub resolvers want it.
        flags = 0x8580 | (NO_ERROR if address else NO_SUCH_NAME)
        header = data[:2] + struct.pack("!HHHHH", flags, 1, 1 if answer else 0, 0, 0)
        self.transport.sendto(header + question + answer, addr)


async def main():
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--api", required=True, metavar="HOST:PORT", help="the API server")
    options.add_argument("--pki", required=True, help="the directory with ca.crt, admin.crt and admin.key")
    options.add_argument("--device", required=True, help="the pods' bridge")
    options.add_argument("--dns", required=True, metavar="ADDRESS", help="where names are answered for")
    given = options.parse_args()
    host, _, port = given.api.rpartition(":")
    api, proxy = Api((host, int(port)), given.pki), Proxy(given.device)
    proxy.own(given.dns)
    loop = asyncio.get_running_loop()
    await loop.create_datagram_endpoint(lambda: Names(proxy), local_addr=(given.dns, 53))
    while True:
        try:
            services = await loop.run_in_executor(None, api.items, "/api/v1/services")
            slices = await loop.run_in_executor(None, api.items, "/apis/discovery.k8s.io/v1/endpointslices")
            await proxy.show(*picture(services, slices, api.address))
        except (OSError, http.client.HTTPException, ValueError) as error:
            print(f"no look: {error!r}", file=sys.stderr, flush=True)
        await asyncio.sleep(PAUSE)


if __name__ == "__main__":
    asyncio.run(main())
