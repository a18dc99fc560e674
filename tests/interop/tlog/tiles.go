package main

import (
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/mod/sumdb/tlog"
)

const height = 8

// tileDir reads tiles from a folder. Go's paths tell the height as well, and say "data" where C2SP says "entries".
type tileDir string

func (dir tileDir) path(t tlog.Tile) string {
	path := strings.Replace(t.Path(), fmt.Sprintf("tile/%d/", height), "tile/", 1)
	return filepath.Join(string(dir), strings.Replace(path, "tile/data/", "tile/entries/", 1))
}

func (dir tileDir) Height() int { return height }

func (dir tileDir) ReadTiles(tiles []tlog.Tile) ([][]byte, error) {
	data := make([][]byte, len(tiles))
	for i, t := range tiles {
		var err error
		if data[i], err = os.ReadFile(dir.path(t)); err != nil {
			return nil, err
		}
	}
	return data, nil
}

func (dir tileDir) SaveTiles([]tlog.Tile, [][]byte) {}

// bundle reads an entry bundle, which must hold exactly as many entries as it is wide.
func (dir tileDir) bundle(t tlog.Tile) ([][]byte, error) {
	t.L = -1
	data, err := os.ReadFile(dir.path(t))
	if err != nil {
		return nil, err
	}
	var entries [][]byte
	for len(data) >= 2 {
		length := int(binary.BigEndian.Uint16(data))
		if len(data) < 2+length {
			return nil, fmt.Errorf("%s is cut", dir.path(t))
		}
		entries = append(entries, data[2:2+length])
		data = data[2+length:]
	}
	if len(data) != 0 || len(entries) != t.W {
		return nil, fmt.Errorf("%s has %d entries and %d bytes more, wanted %d", dir.path(t), len(entries), len(data), t.W)
	}
	return entries, nil
}
