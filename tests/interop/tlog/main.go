// Command tlog checks our transparency log with other people's code: golang.org/x/mod/sumdb/{note,tlog} for notes, tiles and proofs,
// github.com/transparency-dev/formats for offline proofs and cosignatures.
//
//	tlog verify DIR   verifies all that lies in DIR; prints a line each, exits with 1 at the first fault
//	tlog write DIR    writes the like, made by that code, for our side to verify
//
// DIR holds:
//
//	log.vkey, witnesses.vkey      public keys, a line each; there may be no witness
//	tile/...                      as C2SP tlog-tiles has them
//	checkpoints/<size>            cosigned by every witness
//	inclusion/<size>-<index>      base64 hashes, a line each
//	consistency/<old>-<new>       the same
//	proofs/<index>.tlog-proof     cosigned by every witness
//	entries/<index>               entries of those proofs, as somebody holds them; this folder may be missing
package main

import (
	"fmt"
	"os"
)

func main() {
	if len(os.Args) != 3 {
		fail(fmt.Errorf("usage: tlog verify|write DIR"))
	}
	run := map[string]func(string) error{"verify": verify, "write": write}[os.Args[1]]
	if run == nil {
		fail(fmt.Errorf("no such command: %s", os.Args[1]))
	}
	if err := run(os.Args[2]); err != nil {
		fail(err)
	}
}

func fail(err error) {
	fmt.Println("FAULT", err)
	os.Exit(1)
}
