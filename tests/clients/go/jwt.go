package main

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/hmac"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"os"
	"strings"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
)

// method is one that tokens are signed with.
type method struct {
	name  string
	hash  crypto.Hash
	curve elliptic.Curve
}

var methods = []method{
	{"HS256", crypto.SHA256, nil},
	{"HS512", crypto.SHA512, nil},
	{"RS256", crypto.SHA256, nil},
	{"RS384", crypto.SHA384, nil},
	{"PS256", crypto.SHA256, nil},
	{"PS512", crypto.SHA512, nil},
	{"ES256", crypto.SHA256, elliptic.P256()},
	{"ES384", crypto.SHA384, elliptic.P384()},
	{"ES512", crypto.SHA512, elliptic.P521()},
	{"EdDSA", 0, nil},
}

// key makes one that fits; it is a secret for HMAC.
func (m method) key() (any, error) {
	switch m.name[:2] {
	case "HS":
		secret := make([]byte, 32)
		_, err := rand.Read(secret)
		return secret, err
	case "RS", "PS":
		return rsa.GenerateKey(rand.Reader, 2048)
	case "ES":
		return ecdsa.GenerateKey(m.curve, rand.Reader)
	default:
		_, key, err := ed25519.GenerateKey(rand.Reader)
		return key, err
	}
}

// write puts a key into files, and tells the server's flag.
func (m method) write(shop *shop, key any) (string, error) {
	private, public := shop.path(m.name+".key"), shop.path(m.name+".pub")
	flag := fmt.Sprintf("--auth-token=jwt,sign-method=%s,priv-key=%s,ttl=2s", m.name, private)
	if secret, isSecret := key.([]byte); isSecret {
		return flag, os.WriteFile(private, secret, 0o600)
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return "", err
	}
	kind := "PRIVATE KEY"
	// The older forms are as good.
	switch key := key.(type) {
	case *rsa.PrivateKey:
		kind, der = "RSA PRIVATE KEY", x509.MarshalPKCS1PrivateKey(key)
	case *ecdsa.PrivateKey:
		kind = "EC PRIVATE KEY"
		if der, err = x509.MarshalECPrivateKey(key); err != nil {
			return "", err
		}
	}
	spki, err := x509.MarshalPKIXPublicKey(key.(crypto.Signer).Public())
	if err != nil {
		return "", err
	}
	return flag + ",pub-key=" + public, errors.Join(
		os.WriteFile(private, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600),
		os.WriteFile(public, pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: spki}), 0o600),
	)
}

func (m method) digest(text string) []byte {
	hash := m.hash.New()
	hash.Write([]byte(text))
	return hash.Sum(nil)
}

// sign is the standard library's word on what a signature is.
func (m method) sign(key any, text string) ([]byte, error) {
	switch key := key.(type) {
	case []byte:
		code := hmac.New(m.hash.New, key)
		code.Write([]byte(text))
		return code.Sum(nil), nil
	case *rsa.PrivateKey:
		if m.name[0] == 'P' {
			options := &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash}
			return rsa.SignPSS(rand.Reader, key, m.hash, m.digest(text), options)
		}
		return rsa.SignPKCS1v15(rand.Reader, key, m.hash, m.digest(text))
	case *ecdsa.PrivateKey:
		r, s, err := ecdsa.Sign(rand.Reader, key, m.digest(text))
		if err != nil {
			return nil, err
		}
		size := (m.curve.Params().BitSize + 7) / 8
		both := make([]byte, 2*size)
		r.FillBytes(both[:size])
		s.FillBytes(both[size:])
		return both, nil
	default:
		return ed25519.Sign(key.(ed25519.PrivateKey), []byte(text)), nil
	}
}

func (m method) isGenuine(key any, text string, signature []byte) bool {
	switch key := key.(type) {
	case []byte:
		own, _ := m.sign(key, text)
		return hmac.Equal(own, signature)
	case *rsa.PrivateKey:
		if m.name[0] == 'P' {
			return rsa.VerifyPSS(&key.PublicKey, m.hash, m.digest(text), signature, nil) == nil
		}
		return rsa.VerifyPKCS1v15(&key.PublicKey, m.hash, m.digest(text), signature) == nil
	case *ecdsa.PrivateKey:
		half := len(signature) / 2
		r, s := new(big.Int).SetBytes(signature[:half]), new(big.Int).SetBytes(signature[half:])
		return ecdsa.Verify(&key.PublicKey, m.digest(text), r, s)
	default:
		public := key.(ed25519.PrivateKey).Public().(ed25519.PublicKey)
		return ed25519.Verify(public, []byte(text), signature)
	}
}

func encode(part any) string {
	text, isText := part.([]byte)
	if !isText {
		text, _ = json.Marshal(part)
	}
	return base64.RawURLEncoding.EncodeToString(text)
}

// forge makes a token for alice that says it is signed so.
func (m method) forge(key any, alg string, revision float64, end time.Duration) (string, error) {
	claims := map[string]any{
		"username": "alice", "revision": revision, "exp": time.Now().Add(end).Unix(),
	}
	text := encode(map[string]any{"alg": alg, "typ": "JWT"}) + "." + encode(claims)
	if alg == "none" {
		return text + ".", nil
	}
	signature, err := m.sign(key, text)
	return text + "." + encode(signature), err
}

func (m method) check(ctx context.Context, shop *shop) error {
	key, err := m.key()
	if err != nil {
		return err
	}
	flag, err := m.write(shop, key)
	if err != nil {
		return err
	}
	server, err := shop.start(ctx, "https", flag, "--bcrypt-cost=4")
	if err != nil {
		return err
	}
	defer server.stop()
	token, err := tokens(ctx, server)
	if err != nil {
		return err
	}
	var header, claims map[string]any
	parts := strings.Split(token, ".")
	if len(parts) != 3 {
		return fmt.Errorf("token %s", token)
	}
	for number, into := range []*map[string]any{&header, &claims} {
		text, err := base64.RawURLEncoding.DecodeString(parts[number])
		if err := errors.Join(err, json.Unmarshal(text, into)); err != nil {
			return err
		}
	}
	signature, err := base64.RawURLEncoding.DecodeString(parts[2])
	if err != nil {
		return err
	}
	revision, _ := claims["revision"].(float64)
	return errors.Join(
		equal("algorithm", header["alg"], any(m.name)),
		equal("user", claims["username"], any("alice")),
		equal("genuine", m.isGenuine(key, parts[0]+"."+parts[1], signature), true),
		m.forgeries(ctx, server, key, revision),
		newPassword(ctx, server),
	)
}

// forgeries shows which tokens that others have made are taken.
func (m method) forgeries(ctx context.Context, server *running, key any, revision float64) error {
	client, err := server.client("")
	if err != nil {
		return err
	}
	defer client.Close()
	kv := pb.NewKVClient(client.ActiveConnection())
	ask := func(token string, err error) error {
		if err != nil {
			return err
		}
		bearing := metadata.AppendToOutgoingContext(ctx, "authorization", "Bearer "+token)
		_, err = kv.Range(bearing, &pb.RangeRequest{Key: []byte(root)})
		return err
	}
	foreign, err := m.key()
	if err != nil {
		return err
	}
	refused := func(what string, err error) error {
		return is(what, err, codes.Unauthenticated, noToken)
	}
	old := ask(m.forge(key, m.name, revision-1, time.Minute))
	return errors.Join(
		equal("by the same key", ask(m.forge(key, m.name, revision, time.Minute)), nil),
		refused("by another key", ask(m.forge(foreign, m.name, revision, time.Minute))),
		refused("over", ask(m.forge(key, m.name, revision, -time.Second))),
		refused("alg=none", ask(m.forge(key, "none", revision, time.Minute))),
		refused("another alg", ask(m.forge(key, "HS384", revision, time.Minute))),
		is("of an older revision", old, codes.InvalidArgument, "etcdserver: revision of auth store is old"),
	)
}
