package goclient

import (
	"bytes"
	"encoding/hex"
	"strings"
	"testing"
)

// The worked example of docs/protocol.md.
const example = "04 0e 02 00 01 72 65 61 6c 74 69 6d 65 3a 72 6f 6f 6d 31 68 69 7b 22 61 22 3a 31 7d"

func TestDecodeBroadcast(t *testing.T) {
	frame, err := hex.DecodeString(strings.ReplaceAll(example, " ", ""))
	if err != nil {
		t.Fatal(err)
	}
	e, err := decodeBroadcast(frame)
	if err != nil || e.Topic != "room1" || e.Broadcast != "hi" || string(e.Payload) != `{"a":1}` || e.Binary || len(e.Meta) != 0 {
		t.Errorf("decoded %+v, %v", e, err)
	}
	for n := range len(frame) - len(`{"a":1}`) {
		if _, err := decodeBroadcast(frame[:n]); err == nil {
			t.Errorf("a frame cut after %d bytes is accepted", n)
		}
	}
}

func FuzzDecodeBroadcast(f *testing.F) {
	frame, _ := hex.DecodeString(strings.ReplaceAll(example, " ", ""))
	f.Add(frame)
	f.Add([]byte{4, 255, 255, 255, 0})
	f.Fuzz(func(t *testing.T, frame []byte) {
		e, err := decodeBroadcast(frame)
		if err == nil && !bytes.HasSuffix(frame, e.Payload) {
			t.Errorf("payload %q is not the end of %q", e.Payload, frame)
		}
	})
}
