// Command count prints what failed and was skipped in the output of go test
// -json, and closes with one line of counts.
package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"
	"strings"
)

type event struct {
	Action, Package, Test, Output string
}

func main() {
	f, err := os.Open(os.Args[1])
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(2)
	}
	defer f.Close()

	var passed, failed, skipped int
	output := map[string]*strings.Builder{}
	lines := bufio.NewScanner(f)
	lines.Buffer(nil, 1<<24)
	for lines.Scan() {
		var e event
		if json.Unmarshal(lines.Bytes(), &e) != nil {
			fmt.Println(lines.Text()) // a build failure is plain text
			continue
		}
		key := e.Package + " " + e.Test
		switch e.Action {
		case "output", "build-output":
			if output[key] == nil {
				output[key] = new(strings.Builder)
			}
			output[key].WriteString(e.Output)
		case "pass":
			if e.Test != "" {
				passed++
			} else {
				fmt.Println("ok  ", e.Package)
			}
			delete(output, key)
		case "fail", "build-fail":
			if e.Test != "" {
				failed++
			}
			if b := output[key]; b != nil {
				fmt.Println("FAIL", key)
				fmt.Print(b)
			}
		case "skip":
			if e.Test != "" {
				skipped++
				fmt.Print("SKIP ", key, "\n", output[key])
			}
		}
	}
	fmt.Printf("%d passed, %d failed, %d skipped\n", passed, failed, skipped)
}
