package auth

import (
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"strings"

	"golang.org/x/crypto/argon2"
	"golang.org/x/crypto/bcrypt"
	"golang.org/x/crypto/scrypt"
)

// bcryptCost is the original's: 60 to 90 ms.
const bcryptCost = 10

// dummyHash belongs to no password. It is compared when there is no user or no
// password, so that the answer takes as long as with one.
const dummyHash = "$2a$10$ZhJl87G/JivAXy8waxsUkuxa8FqBbnxlMAaejbU/1.jbzvue0aDmG"

// hasher runs the expensive functions on passwords, a bounded number at a time,
// so that a storm of sign-ins leaves processors to REST and Realtime.
type hasher struct {
	cost    int
	dummy   string
	waiting chan struct{} // a place in the queue, running ones included
	running chan struct{}
}

func newHasher(cost, workers, queue int) *hasher {
	h := &hasher{
		cost:    cost,
		dummy:   dummyHash,
		waiting: make(chan struct{}, workers+queue),
		running: make(chan struct{}, workers),
	}
	if cost != bcryptCost {
		h.dummy = string(mustHash("nobody", cost))
	}
	return h
}

func mustHash(password string, cost int) []byte {
	text, err := bcrypt.GenerateFromPassword([]byte(password), cost)
	if err != nil {
		panic(err) // a constant password and cost
	}
	return text
}

// turn waits for a worker. The caller calls done.
func (h *hasher) turn(ctx context.Context) (done func(), err error) {
	select {
	case h.waiting <- struct{}{}:
	default:
		return nil, errRateLimit.because(errors.New("the queue of passwords to hash is full"))
	}
	select {
	case h.running <- struct{}{}:
		return func() { <-h.running; <-h.waiting }, nil
	case <-ctx.Done():
		<-h.waiting
		return nil, context.Cause(ctx)
	}
}

// hash returns what is stored for a password of at most maxPassword bytes.
func (h *hasher) hash(ctx context.Context, password string) (string, error) {
	done, err := h.turn(ctx)
	if err != nil {
		return "", err
	}
	defer done()
	text, err := bcrypt.GenerateFromPassword([]byte(password), h.cost)
	if err != nil {
		return "", fmt.Errorf("hash password: %w", err)
	}
	return string(text), nil
}

// verify compares a password with what is stored. An empty or unreadable hash is
// compared all the same, with one that no password has.
func (h *hasher) verify(ctx context.Context, stored, password string) (bool, error) {
	done, err := h.turn(ctx)
	if err != nil {
		return false, err
	}
	defer done()
	if check, err := checkerOf(stored); err == nil {
		return check(password), nil
	}
	_ = bcrypt.CompareHashAndPassword([]byte(h.dummy), cut(password))
	return false, nil
}

// cut shortens a password as bcrypt does: sign-in does not tell that it is too long.
func cut(password string) []byte {
	return []byte(password[:min(len(password), maxPassword)])
}

// checkerOf reads a stored hash: bcrypt, argon2i, argon2id, or Firebase's scrypt,
// with parameters that do not let an imported hash exhaust the server.
func checkerOf(stored string) (func(password string) bool, error) {
	switch {
	case strings.HasPrefix(stored, "$2"):
		cost, err := bcrypt.Cost([]byte(stored))
		if err != nil {
			return nil, err
		}
		if cost > maxCost {
			return nil, fmt.Errorf("bcrypt cost %d is over %d", cost, maxCost)
		}
		return func(password string) bool {
			return bcrypt.CompareHashAndPassword([]byte(stored), cut(password)) == nil
		}, nil
	case strings.HasPrefix(stored, "$argon2"):
		return argon2Checker(stored)
	case strings.HasPrefix(stored, "$fbscrypt$"):
		return fbscryptChecker(stored)
	}
	return nil, errors.New("unknown password hash")
}

const (
	maxCost         = 16      // about 5 s
	maxArgon2Memory = 1 << 20 // KiB
	maxArgon2Time   = 20
	maxArgon2Lanes  = 16
	maxScryptBytes  = 256 << 20
)

var argon2Form = regexp.MustCompile(`^\$(argon2id?)\$v=19\$m=([0-9]+),t=([0-9]+),p=([0-9]+)\$([^$]+)\$([^$]+)$`)

func argon2Checker(stored string) (func(string) bool, error) {
	part := argon2Form.FindStringSubmatch(stored)
	if part == nil {
		return nil, errors.New("unreadable argon2 hash")
	}
	memory, err1 := number(part[2], 8, maxArgon2Memory)
	time, err2 := number(part[3], 1, maxArgon2Time)
	lanes, err3 := number(part[4], 1, maxArgon2Lanes)
	salt, err4 := base64.RawStdEncoding.DecodeString(part[5])
	want, err5 := base64.RawStdEncoding.DecodeString(part[6])
	if err := errors.Join(err1, err2, err3, err4, err5); err != nil {
		return nil, err
	}
	if len(want) < 4 || len(want) > 1024 {
		return nil, errors.New("argon2 hash of odd length")
	}
	derive := argon2.Key
	if part[1] == "argon2id" {
		derive = argon2.IDKey
	}
	return func(password string) bool {
		got := derive([]byte(password), salt, uint32(time), uint32(memory), uint8(lanes), uint32(len(want)))
		return subtle.ConstantTimeCompare(got, want) == 1
	}, nil
}

var fbscryptForm = regexp.MustCompile(`^\$fbscrypt\$v=1,n=([0-9]+),r=([0-9]+),p=([0-9]+)(?:,ss=([^,$]+))?(?:,sk=([^$]+))?\$([^$]+)\$([^$]+)$`)

// fbscryptChecker reads Firebase's scheme: the key that scrypt derives encrypts
// the project's signer key, and the result is the hash.
func fbscryptChecker(stored string) (func(string) bool, error) {
	part := fbscryptForm.FindStringSubmatch(stored)
	if part == nil {
		return nil, errors.New("unreadable fbscrypt hash")
	}
	logN, err1 := number(part[1], 1, 20)
	r, err2 := number(part[2], 1, 64)
	p, err3 := number(part[3], 1, 16)
	separator, err4 := base64.StdEncoding.DecodeString(part[4])
	signer, err5 := base64.StdEncoding.DecodeString(part[5])
	salt, err6 := base64.StdEncoding.DecodeString(part[6])
	want, err7 := base64.StdEncoding.DecodeString(part[7])
	if err := errors.Join(err1, err2, err3, err4, err5, err6, err7); err != nil {
		return nil, err
	}
	if 128*r<<logN > maxScryptBytes {
		return nil, errors.New("fbscrypt needs too much memory")
	}
	if len(signer) == 0 || len(want) == 0 {
		return nil, errors.New("fbscrypt hash without signer key")
	}
	salt = append(salt, separator...)
	return func(password string) bool {
		key, err := scrypt.Key([]byte(password), salt, 1<<logN, r, p, 32)
		if err != nil {
			return false
		}
		block, err := aes.NewCipher(key)
		if err != nil {
			return false
		}
		got := make([]byte, len(signer))
		cipher.NewCTR(block, make([]byte, aes.BlockSize)).XORKeyStream(got, signer)
		return subtle.ConstantTimeCompare(got, want) == 1
	}, nil
}

func number(s string, least, most int) (int, error) {
	n, err := strconv.Atoi(s)
	if err != nil || n < least || n > most {
		return 0, fmt.Errorf("parameter %q is not between %d and %d", s, least, most)
	}
	return n, nil
}

// unknownHash returns the hash of a password that nobody knows, for users who sign
// in by other means. It is random itself: to find a password that fits is as hard
// as to invert bcrypt.
func unknownHash() string {
	const alphabet = "./ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"
	random := make([]byte, 16+23)
	_, _ = rand.Read(random) // never fails
	encode := base64.NewEncoding(alphabet).WithPadding(base64.NoPadding).EncodeToString
	return fmt.Sprintf("$2a$%02d$%s%s", bcryptCost, encode(random[:16]), encode(random[16:]))
}
