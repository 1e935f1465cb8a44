package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// process is one gateway under measurement.
type process struct {
	cmd  *exec.Cmd
	addr string
}

// launch starts a gateway, on a core of its own if one is named, and waits until
// it answers.
func launch(ctx context.Context, dir, caddy, core, name, site, upstream string) (*process, error) {
	addr := freeAddr()
	file := join(dir, "Caddyfile"+name)
	global, body, _ := strings.Cut(site, "---\n")
	src := fmt.Sprintf("{\nadmin off\nauto_https off\npersist_config off\nstorage file_system %s\n%s}\nhttp://:%s {\nbind 127.0.0.1\n%s\n}\n", dir, global, addr[strings.LastIndexByte(addr, ':')+1:], strings.ReplaceAll(body, "UPSTREAM", upstream))
	if err := os.WriteFile(file, []byte(src), 0o600); err != nil {
		return nil, err
	}
	log, err := os.Create(join(dir, "log"+name))
	if err != nil {
		return nil, err
	}
	argv := []string{caddy, "run", "--config", file, "--adapter", "caddyfile"}
	if core != "" {
		argv = append([]string{"taskset", "-c", core}, argv...)
	}
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	cmd.Stderr, cmd.Dir = log, dir
	if _, env, ok := strings.Cut(site, "# env "); ok {
		cmd.Env = append(os.Environ(), strings.Fields(env)[0])
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	p := &process{cmd, addr}
	for range 200 {
		if c, err := net.Dial("tcp", addr); err == nil {
			c.Close()
			return p, nil
		}
		time.Sleep(50 * time.Millisecond)
	}
	p.kill()
	out, _ := os.ReadFile(log.Name())
	return nil, fmt.Errorf("it does not listen:\n%s", out)
}

func (p *process) kill() { _ = p.cmd.Process.Kill(); _ = p.cmd.Wait() }

// cpu is the time that the process's threads have run, which the scheduler
// counts in nanoseconds.
func (p *process) cpu() time.Duration {
	files, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/schedstat", p.cmd.Process.Pid))
	var sum time.Duration
	for _, name := range files {
		data, _ := os.ReadFile(name)
		ran, _, _ := bytes.Cut(data, []byte(" "))
		ns, _ := strconv.ParseInt(string(ran), 10, 64)
		sum += time.Duration(ns)
	}
	return sum
}

// memory is the process's resident set in MiB.
func (p *process) memory() float64 {
	data, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.cmd.Process.Pid))
	for line := range strings.Lines(string(data)) {
		if rest, ok := strings.CutPrefix(line, "VmRSS:"); ok {
			kb, _ := strconv.ParseFloat(strings.Fields(rest)[0], 64)
			return kb / 1024
		}
	}
	return 0
}

type result struct{ cpu, p50, p99, rate float64 }

// load sends the request over and over on conns connections and fails on any
// answer that is not a 200: a refusal is cheap and would look fast.
func load(p *process, request string, length time.Duration, conns int) (result, error) {
	var (
		wg    sync.WaitGroup
		mu    sync.Mutex
		took  []time.Duration
		fault error
	)
	before, began := p.cpu(), time.Now()
	for range conns {
		wg.Go(func() {
			mine, err := one(p.addr, request, began.Add(length))
			mu.Lock()
			defer mu.Unlock()
			took = append(took, mine...)
			fault = errors.Join(fault, err)
		})
	}
	wg.Wait()
	spent, wall := p.cpu()-before, time.Since(began)
	if fault != nil || len(took) == 0 {
		return result{}, fmt.Errorf("%d answers: %w", len(took), fault)
	}
	slices.Sort(took)
	us := func(d time.Duration) float64 { return float64(d) / float64(time.Microsecond) }
	return result{
		cpu:  us(spent) / float64(len(took)),
		p50:  us(took[len(took)/2]),
		p99:  us(took[len(took)*99/100]),
		rate: float64(len(took)) / wall.Seconds(),
	}, nil
}

func one(addr, request string, until time.Time) ([]time.Duration, error) {
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	br := bufio.NewReader(conn)
	var took []time.Duration
	for time.Now().Before(until) {
		sent := time.Now()
		if _, err := io.WriteString(conn, request); err != nil {
			return took, err
		}
		resp, err := http.ReadResponse(br, nil)
		if err != nil {
			return took, err
		}
		body, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		if err != nil {
			return took, err
		}
		if resp.StatusCode != http.StatusOK || len(body) < 1000 { // Caddy answers 200 with nothing when no site matches
			return took, fmt.Errorf("status %d: %.200s", resp.StatusCode, body)
		}
		took = append(took, time.Since(sent))
	}
	return took, nil
}
