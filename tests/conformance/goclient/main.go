// goclient acts towards a Garden server as the Go Garden client does: plain calls with
// "Connection: close", hijacked ones through httputil.ClientConn and raw from there on.
//
//	goclient list                        the names of the scenarios
//	goclient ADDRESS PREFIX SCENARIO...  runs them, with handles that begin with PREFIX
//
// One line of JSON for each scenario: {"scenario": ..., "ok": true or false, "error": ...}.
package main

import (
	"encoding/json"
	"fmt"
	"os"
)

type result struct {
	Scenario string `json:"scenario"`
	OK       bool   `json:"ok"`
	Error    string `json:"error,omitempty"`
}

func runOne(address, prefix, name string) result {
	s, known := scenarios[name]
	if !known {
		return result{Scenario: name, Error: "there is no such scenario"}
	}
	b := &box{client: newClient(address), handle: prefix + name}
	err := b.client.call("POST", "/containers", object{"handle": b.handle}, nil)
	if err == nil {
		err = s(b)
		destroyed := b.client.call("DELETE", containerPath(b.handle), nil, nil)
		if err == nil && !b.destroyed {
			err = destroyed
		}
	}
	if err != nil {
		return result{Scenario: name, Error: err.Error()}
	}
	return result{Scenario: name, OK: true}
}

func main() {
	if len(os.Args) == 2 && os.Args[1] == "list" {
		for name := range scenarios {
			fmt.Println(name)
		}
		return
	}
	if len(os.Args) < 4 {
		fmt.Fprintln(os.Stderr, "usage: goclient list | goclient ADDRESS PREFIX SCENARIO...")
		os.Exit(2)
	}
	failed := false
	for _, name := range os.Args[3:] {
		one := runOne(os.Args[1], os.Args[2], name)
		failed = failed || !one.OK
		_ = json.NewEncoder(os.Stdout).Encode(one)
	}
	if failed {
		os.Exit(1)
	}
}
