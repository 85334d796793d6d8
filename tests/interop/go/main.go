// go-oidc takes our tokens by discovery alone, as kube-apiserver and much of the cloud would.
//
// Reads {issuer, audience, party, access, identity} from standard input; answers the subjects. go-oidc does not look at
// typ: only the audience keeps the kinds apart here.
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"time"

	"github.com/coreos/go-oidc/v3/oidc"
)

type question struct {
	Issuer, Audience, Party, Access, Identity string
}

func ask(ctx context.Context) (map[string]string, error) {
	var q question
	if err := json.NewDecoder(os.Stdin).Decode(&q); err != nil {
		return nil, err
	}
	// Fails unless the document names this very issuer.
	provider, err := oidc.NewProvider(ctx, q.Issuer)
	if err != nil {
		return nil, err
	}
	var metadata struct {
		Algorithms []string `json:"id_token_signing_alg_values_supported"`
	}
	if err := provider.Claims(&metadata); err != nil {
		return nil, err
	}
	if !slices.Contains(metadata.Algorithms, oidc.ES256) {
		return nil, fmt.Errorf("the metadata names no ES256: %v", metadata.Algorithms)
	}
	subjects := map[string]string{}
	for _, one := range []struct{ kind, token, audience, other string }{
		{"access", q.Access, q.Audience, q.Party},
		{"identity", q.Identity, q.Party, q.Audience},
	} {
		// Without SupportedSigningAlgs: those that discovery names.
		token, err := provider.Verifier(&oidc.Config{ClientID: one.audience}).Verify(ctx, one.token)
		if err != nil {
			return nil, fmt.Errorf("%s token: %w", one.kind, err)
		}
		named := &oidc.Config{ClientID: one.audience, SupportedSigningAlgs: metadata.Algorithms}
		if _, err := provider.Verifier(named).Verify(ctx, one.token); err != nil {
			return nil, fmt.Errorf("%s token: %w", one.kind, err)
		}
		if _, err := provider.Verifier(&oidc.Config{ClientID: one.other}).Verify(ctx, one.token); err == nil {
			return nil, fmt.Errorf("the %s token is taken for another audience", one.kind)
		}
		late := &oidc.Config{ClientID: one.audience, Now: func() time.Time { return token.Expiry.Add(time.Hour) }}
		if _, err := provider.Verifier(late).Verify(ctx, one.token); err == nil {
			return nil, fmt.Errorf("the %s token is taken after its end", one.kind)
		}
		subjects[one.kind] = token.Subject
	}
	return subjects, nil
}

func main() {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	subjects, err := ask(ctx)
	if err == nil {
		err = json.NewEncoder(os.Stdout).Encode(subjects)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
