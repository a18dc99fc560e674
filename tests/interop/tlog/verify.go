package main

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/transparency-dev/formats/log"
	cosig "github.com/transparency-dev/formats/note"
	"github.com/transparency-dev/formats/proof"
	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

type verifier struct {
	dir       tileDir
	log       note.Verifier
	witnesses []note.Verifier
	trees     map[int64]tlog.Tree
	entries   [][]byte
}

func verify(dir string) error {
	v := &verifier{dir: tileDir(dir), trees: map[int64]tlog.Tree{}}
	for _, step := range []func() error{v.keys, v.checkpoints, v.tiles, v.inclusion, v.consistency, v.proofs, v.opened} {
		if err := step(); err != nil {
			return err
		}
	}
	return nil
}

func (v *verifier) keys() error {
	logs, err := v.lines("log.vkey")
	if err != nil {
		return err
	}
	if len(logs) != 1 {
		return fmt.Errorf("log.vkey: one key is expected")
	}
	if v.log, err = note.NewVerifier(logs[0]); err != nil {
		return fmt.Errorf("log.vkey: %w", err)
	}
	witnesses, err := v.lines("witnesses.vkey")
	if err != nil {
		return err
	}
	for _, line := range witnesses {
		witness, err := cosig.NewVerifierForCosignatureV1(line)
		if err != nil {
			return fmt.Errorf("witnesses.vkey: %w", err)
		}
		// That constructor does not look at the id in the text.
		if !strings.HasPrefix(line, fmt.Sprintf("%s+%08x+", witness.Name(), witness.KeyHash())) {
			return fmt.Errorf("witnesses.vkey: another id belongs to %s", witness.Name())
		}
		v.witnesses = append(v.witnesses, witness)
	}
	fmt.Println("ok keys", v.log.Name(), len(v.witnesses), "witnesses")
	return nil
}

// checkpoint opens a note that the log and every witness must have signed.
func (v *verifier) checkpoint(text []byte) (tlog.Tree, error) {
	opened, err := note.Open(text, note.VerifierList(append([]note.Verifier{v.log}, v.witnesses...)...))
	if err != nil {
		return tlog.Tree{}, err
	}
	signed := map[string]bool{}
	for _, s := range opened.Sigs {
		signed[s.Name] = true
	}
	if len(signed) != 1+len(v.witnesses) {
		return tlog.Tree{}, fmt.Errorf("signed by %v only", slices.Sorted(maps.Keys(signed)))
	}
	var c log.Checkpoint
	rest, err := c.Unmarshal([]byte(opened.Text))
	if err != nil {
		return tlog.Tree{}, err
	}
	if c.Origin != v.log.Name() || len(rest) != 0 || !bytes.Equal(c.Marshal(), []byte(opened.Text)) {
		return tlog.Tree{}, fmt.Errorf("origin or form is not the expected one")
	}
	if len(c.Hash) != tlog.HashSize {
		return tlog.Tree{}, fmt.Errorf("the root has %d bytes", len(c.Hash))
	}
	return tlog.Tree{N: int64(c.Size), Hash: tlog.Hash(c.Hash)}, nil
}

func (v *verifier) checkpoints() error {
	return v.each("checkpoints", func(name string, text []byte) error {
		tree, err := v.checkpoint(text)
		if err != nil {
			return err
		}
		if fmt.Sprint(tree.N) != name {
			return fmt.Errorf("has size %d", tree.N)
		}
		v.trees[tree.N] = tree
		return nil
	})
}

// tiles authenticates every tile of every tree against its root, and every entry against its leaf hash.
func (v *verifier) tiles() error {
	for _, size := range slices.Sorted(maps.Keys(v.trees)) {
		reader := tlog.TileHashReader(v.trees[size], v.dir)
		if root, err := tlog.TreeHash(size, reader); err != nil || root != v.trees[size].Hash {
			return fmt.Errorf("root of %d: %v %v", size, root, err)
		}
		tiles := tlog.NewTiles(height, 0, size)
		v.entries = v.entries[:0]
		for _, t := range tiles {
			want, err := tlog.ReadTileData(t, reader)
			if err != nil {
				return fmt.Errorf("%s: %w", v.dir.path(t), err)
			}
			got, err := os.ReadFile(v.dir.path(t))
			if err != nil {
				return err
			}
			if !bytes.Equal(got, want) {
				return fmt.Errorf("%s has other bytes than the tree", v.dir.path(t))
			}
			if t.L != 0 {
				continue
			}
			entries, err := v.dir.bundle(t)
			if err != nil {
				return err
			}
			for i, entry := range entries {
				if hash := tlog.RecordHash(entry); !bytes.Equal(hash[:], want[i*tlog.HashSize:(i+1)*tlog.HashSize]) {
					return fmt.Errorf("entry %d is not the one in the tree", len(v.entries)+i)
				}
			}
			v.entries = append(v.entries, entries...)
		}
		fmt.Println("ok tiles", size, len(tiles), "tiles")
	}
	return nil
}

func (v *verifier) inclusion() error {
	return v.each("inclusion", func(name string, text []byte) error {
		var size, index int64
		if _, err := fmt.Sscanf(name, "%d-%d", &size, &index); err != nil {
			return err
		}
		hashes, err := parseHashes(text)
		if err != nil {
			return err
		}
		tree := v.trees[size]
		if err := tlog.CheckRecord(hashes, size, tree.Hash, index, tlog.RecordHash(v.entries[index])); err != nil {
			return err
		}
		own, err := tlog.ProveRecord(size, index, tlog.TileHashReader(tree, v.dir))
		if err != nil {
			return err
		}
		return equal(hashes, own)
	})
}

func (v *verifier) consistency() error {
	return v.each("consistency", func(name string, text []byte) error {
		var from, to int64
		if _, err := fmt.Sscanf(name, "%d-%d", &from, &to); err != nil {
			return err
		}
		hashes, err := parseHashes(text)
		if err != nil {
			return err
		}
		if err := tlog.CheckTree(hashes, to, v.trees[to].Hash, from, v.trees[from].Hash); err != nil {
			return err
		}
		own, err := tlog.ProveTree(to, from, tlog.TileHashReader(v.trees[to], v.dir))
		if err != nil {
			return err
		}
		return equal(hashes, own)
	})
}

func (v *verifier) proofs() error {
	return v.each("proofs", func(name string, text []byte) error {
		var p proof.TLogProof
		if err := p.Unmarshal(text); err != nil {
			return err
		}
		if !bytes.Equal(p.Marshal(), text) {
			return fmt.Errorf("is spelled differently from what was read in it")
		}
		tree, err := v.checkpoint(p.Checkpoint)
		if err != nil {
			return err
		}
		if fmt.Sprintf("%d.tlog-proof", p.Index) != name || p.Index >= uint64(len(v.entries)) {
			return fmt.Errorf("is for entry %d", p.Index)
		}
		hashes := make([]tlog.Hash, len(p.Hashes))
		for i, h := range p.Hashes {
			hashes[i] = h
		}
		return tlog.CheckRecord(hashes, tree.N, tree.Hash, int64(p.Index), tlog.RecordHash(v.entries[p.Index]))
	})
}

// opened checks entries that somebody holds, as from a certificate, by the offline proofs alone. There may be none.
func (v *verifier) opened() error {
	if _, err := os.Stat(filepath.Join(string(v.dir), "entries")); os.IsNotExist(err) {
		return nil
	}
	return v.each("entries", func(name string, entry []byte) error {
		var p proof.TLogProof
		text, err := os.ReadFile(filepath.Join(string(v.dir), "proofs", name+".tlog-proof"))
		if err != nil {
			return err
		}
		if err := p.Unmarshal(text); err != nil {
			return err
		}
		tree, err := v.checkpoint(p.Checkpoint)
		if err != nil {
			return err
		}
		hashes := make([]tlog.Hash, len(p.Hashes))
		for i, h := range p.Hashes {
			hashes[i] = h
		}
		return tlog.CheckRecord(hashes, tree.N, tree.Hash, int64(p.Index), tlog.RecordHash(entry))
	})
}

// each hands over the files of a folder, of which there must be some.
func (v *verifier) each(folder string, check func(name string, text []byte) error) error {
	files, err := os.ReadDir(filepath.Join(string(v.dir), folder))
	if err != nil {
		return err
	}
	if len(files) == 0 {
		return fmt.Errorf("%s is empty", folder)
	}
	for _, file := range files {
		text, err := os.ReadFile(filepath.Join(string(v.dir), folder, file.Name()))
		if err == nil {
			err = check(file.Name(), text)
		}
		if err != nil {
			return fmt.Errorf("%s/%s: %w", folder, file.Name(), err)
		}
		fmt.Println("ok", folder, file.Name())
	}
	return nil
}

func (v *verifier) lines(name string) ([]string, error) {
	text, err := os.ReadFile(filepath.Join(string(v.dir), name))
	if err != nil {
		return nil, err
	}
	if len(text) == 0 {
		return nil, nil
	}
	return strings.Split(strings.TrimSuffix(string(text), "\n"), "\n"), nil
}

func parseHashes(text []byte) ([]tlog.Hash, error) {
	var hashes []tlog.Hash
	for line := range strings.Lines(string(text)) {
		bytes, err := base64.StdEncoding.Strict().DecodeString(strings.TrimSuffix(line, "\n"))
		if err != nil {
			return nil, err
		}
		if len(bytes) != tlog.HashSize {
			return nil, fmt.Errorf("a hash has %d bytes", len(bytes))
		}
		hashes = append(hashes, tlog.Hash(bytes))
	}
	return hashes, nil
}

func equal(ours, theirs []tlog.Hash) error {
	if !slices.Equal(ours, theirs) {
		return fmt.Errorf("Go's own proof is another one")
	}
	return nil
}
