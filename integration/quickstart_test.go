package integration

import (
	"bufio"
	"context"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// readmeBlock returns the shell commands behind <!-- name --> in the README.
func readmeBlock(t *testing.T, name string) string {
	t.Helper()
	data, err := os.ReadFile("../README.md")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, ok := strings.Cut(string(data), "<!-- "+name+" -->\n```sh\n")
	block, _, end := strings.Cut(rest, "```")
	if !ok || !end {
		t.Fatalf("README.md has no block %q", name)
	}
	return block
}

// TestQuickstart runs the commands of the README, to the letter.
func TestQuickstart(t *testing.T) {
	if _, err := exec.LookPath("curl"); err != nil {
		t.Fatal("the README's requests need curl: apt-get install curl")
	}
	root := checkout(t)
	env := append(os.Environ(), "XDG_DATA_HOME="+t.TempDir(), "no_proxy=*")

	run := exec.CommandContext(t.Context(), "bash", "-c", readmeBlock(t, "quickstart"))
	run.Dir, run.Env = root, env
	run.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // go run has a child
	stderr, err := run.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := run.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = syscall.Kill(-run.Process.Pid, syscall.SIGKILL)
		_ = run.Wait()
	})
	started := make(chan bool, 1)
	var log strings.Builder
	go func() {
		for lines := bufio.NewScanner(stderr); lines.Scan(); {
			log.WriteString(lines.Text() + "\n")
			if strings.Contains(lines.Text(), "serving initial configuration") {
				started <- true
				log.Reset()
			}
		}
		started <- false
	}()
	select {
	case ok := <-started:
		if !ok {
			t.Fatalf("the gateway did not start:\n%s", log.String())
		}
	case <-time.After(8 * time.Minute):
		t.Fatal("the gateway did not start in time")
	}

	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	mint := exec.CommandContext(ctx, "bash", "-ec", readmeBlock(t, "token")+"\necho -n $TOKEN")
	mint.Dir, mint.Env, mint.Stderr = root, env, os.Stderr
	token, err := mint.Output()
	if err != nil {
		t.Fatalf("minting a token: %v", err)
	}

	block := readmeBlock(t, "requests")
	cases := regexp.MustCompile(`(?m)^# (\d+)(?: ([a-z_.]+))?: .*\n(.*)$`).FindAllStringSubmatch(block, -1)
	if len(cases) != 9 {
		t.Fatalf("the README shows %d requests, want 9", len(cases))
	}
	for _, c := range cases {
		status, reason, command := c[1], c[2], c[3]
		t.Run(status+" "+reason, func(t *testing.T) {
			curl := exec.CommandContext(ctx, "bash", "-c", command)
			curl.Dir, curl.Env = root, slices.Concat(env, []string{"TOKEN=" + string(token)})
			out, err := curl.Output()
			if err != nil {
				t.Fatalf("%s: %v", command, err)
			}
			if !strings.Contains(string(out), "HTTP/1.1 "+status+" ") || !strings.Contains(string(out), `"reason":"`+reason+`"`) && reason != "" {
				t.Errorf("%s\nanswered:\n%s", command, out)
			}
			if status == "400" && !strings.Contains(string(out), `"pointer":"#/items/0/`) {
				t.Errorf("no pointer in:\n%s", out)
			}
		})
	}
}
