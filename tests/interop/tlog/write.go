package main

import (
	"crypto/rand"
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"

	"github.com/transparency-dev/formats/log"
	cosig "github.com/transparency-dev/formats/note"
	"github.com/transparency-dev/formats/proof"
	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

const written = 300

// hashes is a log's storage in memory.
type hashes []tlog.Hash

func (h hashes) ReadHashes(indexes []int64) ([]tlog.Hash, error) {
	out := make([]tlog.Hash, len(indexes))
	for i, x := range indexes {
		out[i] = h[x]
	}
	return out, nil
}

// write makes a log of 300 entries (entry i is i in 8 bytes, big-endian): its tiles, keys, a cosigned checkpoint and an offline proof of every entry.
func write(dir string) error {
	private, public, err := note.GenerateKey(rand.Reader, "go.example/log")
	if err != nil {
		return err
	}
	witnessPrivate, witnessPublic, err := note.GenerateKey(rand.Reader, "go.example/witness")
	if err != nil {
		return err
	}
	if witnessPublic, err = cosig.VKeyToCosignatureV1(witnessPublic); err != nil {
		return err
	}
	var stored hashes
	for i := range int64(written) {
		more, err := tlog.StoredHashes(i, binary.BigEndian.AppendUint64(nil, uint64(i)), stored)
		if err != nil {
			return err
		}
		stored = append(stored, more...)
	}
	root, err := tlog.TreeHash(written, stored)
	if err != nil {
		return err
	}
	signer, err := note.NewSigner(private)
	if err != nil {
		return err
	}
	witness, err := cosig.NewSignerForCosignatureV1(witnessPrivate)
	if err != nil {
		return err
	}
	text := log.Checkpoint{Origin: signer.Name(), Size: written, Hash: root[:]}.Marshal()
	checkpoint, err := note.Sign(&note.Note{Text: string(text)}, signer, witness)
	if err != nil {
		return err
	}
	files := map[string][]byte{
		"log.skey":       []byte(private),
		"log.vkey":       []byte(public),
		"witnesses.vkey": []byte(witnessPublic),
		"checkpoint":     checkpoint,
	}
	for _, t := range tlog.NewTiles(height, 0, written) {
		data, err := tlog.ReadTileData(t, stored)
		if err != nil {
			return err
		}
		files[tileDir("").path(t)] = data
	}
	for i := range int64(written) {
		p := proof.TLogProof{Index: uint64(i), Checkpoint: checkpoint}
		path, err := tlog.ProveRecord(written, i, stored)
		if err != nil {
			return err
		}
		for _, h := range path {
			p.Hashes = append(p.Hashes, h)
		}
		files[fmt.Sprintf("proofs/%d.tlog-proof", i)] = p.Marshal()
	}
	for name, data := range files {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(path, data, 0o644); err != nil {
			return err
		}
		fmt.Println("wrote", name)
	}
	return nil
}
