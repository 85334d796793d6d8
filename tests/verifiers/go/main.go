// Verifies a token with go-oidc, the library by which much of Kubernetes' world takes tokens.
//
// usage: verify JWKS_FILE ISSUER AUDIENCE access|identity < token
//
// Exit code 0 and "accepted", 1 and "refused: ...", or 2 for wrong usage. go-oidc does not look at typ: the kind is
// taken for the sake of one usage, and only the audience keeps the kinds apart here.
package main

import (
	"context"
	"crypto"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/coreos/go-oidc/v3/oidc"
	"github.com/go-jose/go-jose/v4"
)

func keys(path string) (*oidc.StaticKeySet, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	var set jose.JSONWebKeySet
	if err := json.Unmarshal(text, &set); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	public := make([]crypto.PublicKey, 0, len(set.Keys))
	for _, key := range set.Keys {
		if !key.IsPublic() || !key.Valid() {
			return nil, fmt.Errorf("%s: key %q is not a valid public key", path, key.KeyID)
		}
		public = append(public, key.Key)
	}
	return &oidc.StaticKeySet{PublicKeys: public}, nil
}

func main() {
	if len(os.Args) != 5 || (os.Args[4] != "access" && os.Args[4] != "identity") {
		fmt.Fprintln(os.Stderr, "usage: verify JWKS_FILE ISSUER AUDIENCE access|identity < token")
		os.Exit(2)
	}
	set, err := keys(os.Args[1])
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(2)
	}
	token, err := io.ReadAll(os.Stdin)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(2)
	}
	verifier := oidc.NewVerifier(os.Args[2], set, &oidc.Config{
		ClientID:             os.Args[3],
		SupportedSigningAlgs: []string{oidc.ES256, oidc.RS256},
	})
	if _, err := verifier.Verify(context.Background(), strings.TrimSpace(string(token))); err != nil {
		fmt.Printf("refused: %v\n", err)
		os.Exit(1)
	}
	fmt.Println("accepted")
}
