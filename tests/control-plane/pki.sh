# shellcheck shell=bash
# Certificates and keys of one control plane, made with the openssl command. Sourced by cp.sh.
#
# Invariant: the directory is complete or absent (made beside its place, then renamed), and nothing in
# it is readable by others (cp.sh runs under umask 077).

pki_key() { openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out "$1.key"; }

pki_ca() { # NAME
  pki_key "$1" && openssl req -x509 -new -key "$1.key" -sha256 -days 3650 -subj "/CN=$1" -out "$1.crt" \
    -addext basicConstraints=critical,CA:TRUE -addext keyUsage=critical,digitalSignature,keyCertSign,cRLSign
}

pki_leaf() { # NAME SUBJECT CA EXTENSIONS
  pki_key "$1" && openssl req -new -key "$1.key" -subj "$2" -out "$1.csr" &&
    printf 'keyUsage=critical,digitalSignature\n%b\n' "$4" >"$1.ext" &&
    openssl x509 -req -in "$1.csr" -CA "$3.crt" -CAkey "$3.key" -CAcreateserial -days 3650 -sha256 \
      -extfile "$1.ext" -out "$1.crt" && rm "$1.csr" "$1.ext"
}

pki_all() {
  local names='DNS:localhost,DNS:kubernetes,DNS:kubernetes.default,DNS:kubernetes.default.svc'
  names+=',DNS:kubernetes.default.svc.cluster.local,IP:127.0.0.1,IP:10.0.0.1,IP:198.19.0.1' # the last: tests/node
  pki_ca ca && pki_ca front-proxy-ca &&
    pki_leaf apiserver /CN=kube-apiserver ca "extendedKeyUsage=serverAuth\nsubjectAltName=$names" &&
    pki_leaf front-proxy-client /CN=front-proxy-client front-proxy-ca extendedKeyUsage=clientAuth &&
    pki_leaf admin /O=system:masters/CN=admin ca extendedKeyUsage=clientAuth &&
    pki_leaf kube-controller-manager /CN=system:kube-controller-manager ca extendedKeyUsage=clientAuth &&
    pki_leaf kube-scheduler /CN=system:kube-scheduler ca extendedKeyUsage=clientAuth &&
    openssl genrsa -out sa.key 2048 && openssl rsa -in sa.key -pubout -out sa.pub
}

# pki_make DIR LOG
pki_make() {
  rm -rf "$1.new"
  mkdir "$1.new"
  (cd "$1.new" && pki_all && chmod 600 ./*.key) >"$2" 2>&1 || { tail -n 5 "$2" >&2; return 1; }
  mv "$1.new" "$1"
}

# pki_kubeconfig DIR NAME SERVER: a kubeconfig that speaks as DIR/NAME.crt, on standard output.
pki_kubeconfig() {
  cat <<YAML
apiVersion: v1
kind: Config
clusters:
- name: agentid-test
  cluster:
    server: $3
    certificate-authority-data: $(base64 -w0 "$1/ca.crt")
users:
- name: $2
  user:
    client-certificate-data: $(base64 -w0 "$1/$2.crt")
    client-key-data: $(base64 -w0 "$1/$2.key")
contexts:
- name: agentid-test
  context: {cluster: agentid-test, user: $2}
current-context: agentid-test
YAML
}
