package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"
)

func main() {
	var (
		caddy  = flag.String("caddy", "", "the binary to measure")
		core   = flag.String("core", "", "the core that the gateways run on, by taskset")
		rounds = flag.Int("rounds", 41, "rounds; medians are taken over them")
		length = flag.Duration("length", 500*time.Millisecond, "length of one run")
		conns  = flag.Int("conns", 16, "connections that send one request after another")
		only   = flag.String("only", "", "measure only the sets whose name contains this")
		role   = flag.String("upstream", "", "serve as the upstream on this address and nothing else")
	)
	flag.Parse()
	if *role != "" {
		serveUpstream(*role)
		return
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	err := run(ctx, *caddy, *core, *rounds, *length, *conns, *only)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// serveUpstream answers everything with 1 KB of JSON, and calls of gRPC with a
// message of as much.
func serveUpstream(addr string) {
	text := strings.Repeat("x", 1013)
	body := []byte(`{"data":"` + text + `"}`)
	message := append([]byte{0x0a, 0xf5, 0x07}, text...) // field 1, 1013 bytes
	frame := append([]byte{0, 0, 0, byte(len(message) >> 8), byte(len(message) & 0xff)}, message...)
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	protocols.SetUnencryptedHTTP2(true)
	srv := &http.Server{Addr: addr, Protocols: protocols, ReadHeaderTimeout: time.Minute, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.ProtoMajor == 2 {
			_, _ = io.Copy(io.Discard, r.Body)
			w.Header()["Content-Type"] = []string{"application/grpc"}
			w.Header()["Trailer"] = []string{"Grpc-Status"}
			_, _ = w.Write(frame)
			w.Header()["Grpc-Status"] = []string{"0"}
			return
		}
		w.Header()["Content-Type"] = []string{"application/json"}
		_, _ = w.Write(body)
	})}
	_ = srv.ListenAndServe()
}

// startRedis starts a redis-server on a socket for the scenarios that need one.
func startRedis(ctx context.Context, dir string) (socket string, stop func()) {
	socket = join(dir, "redis")
	cmd := exec.CommandContext(ctx, "redis-server", "--port", "0", "--unixsocket", socket, "--save", "", "--dir", dir)
	if err := cmd.Start(); err != nil {
		fmt.Fprintln(os.Stderr, "bench: without redis-server, a cluster counts alone:", err)
		return socket, func() {}
	}
	return socket, func() { _ = cmd.Process.Kill(); _ = cmd.Wait() }
}

func run(ctx context.Context, caddy, core string, rounds int, length time.Duration, conns int, only string) error {
	dir, err := os.MkdirTemp("", "gatehouse-bench")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	token, err := writeFiles(dir)
	if err != nil {
		return err
	}

	upstream := freeAddr()
	self, err := os.Executable()
	if err != nil {
		return err
	}
	up := exec.CommandContext(ctx, self, "-upstream", upstream)
	if err := up.Start(); err != nil {
		return err
	}
	defer func() { _ = up.Process.Kill(); _ = up.Wait() }()

	redis, stop := startRedis(ctx, dir)
	defer stop()

	cores := "gateway, load and upstream share all cores"
	if core != "" {
		cores = "the gateway has a core of its own"
	}
	fmt.Printf("%s, %d CPUs, %s/%s, %s\n%d rounds of %v, %d connections; "+cores+"\n", cpuModel(), cpus(), runtime.GOOS, runtime.GOARCH, runtime.Version(), rounds, length, conns)
	for _, set := range sets(token) {
		if !strings.Contains(set.name, only) {
			continue
		}
		for i := range set.scenarios {
			set.scenarios[i].caddyfile = strings.ReplaceAll(set.scenarios[i].caddyfile, "REDIS", redis)
		}
		if err := measure(ctx, dir, caddy, core, upstream, set, rounds, length, conns); err != nil {
			return fmt.Errorf("%s: %w", set.name, err)
		}
	}
	return nil
}

// measure runs one set of scenarios and prints its table.
func measure(ctx context.Context, dir, caddy, core, upstream string, set set, rounds int, length time.Duration, conns int) error {
	if set.conns > 0 {
		conns = set.conns
	}
	gateways := make([]*process, len(set.scenarios))
	for i, s := range set.scenarios {
		p, err := launch(ctx, dir, caddy, core, strconv.Itoa(i), s.caddyfile, upstream)
		if err != nil {
			return fmt.Errorf("starting %q: %w", s.name, err)
		}
		defer p.kill()
		gateways[i] = p
	}
	// The machine's speed changes within seconds: before and after each scenario
	// plain Caddy runs as well, and the ratio is to those two.
	results, ratios := make([][]result, len(gateways)), make([][]float64, len(gateways))
	run := func(i int) (result, error) {
		res, err := load(gateways[i], set.request, length, conns)
		if err != nil {
			err = fmt.Errorf("%q: %w", set.scenarios[i].name, err)
		}
		return res, err
	}
	for round := -1; round < rounds; round++ { // the first warms up
		before, err := run(0)
		for i := 1; i < len(gateways) && err == nil; i++ {
			var res, after result
			if res, err = run(i); err == nil {
				after, err = run(0)
			}
			if round >= 0 {
				results[0], ratios[0] = append(results[0], after), append(ratios[0], after.cpu/before.cpu)
				results[i], ratios[i] = append(results[i], res), append(ratios[i], 2*res.cpu/(before.cpu+after.cpu))
			}
			before = after
		}
		if err != nil {
			return err
		}
	}

	fmt.Printf("\n## %s\n\n| scenario | CPU µs/request (min..max) | ratio to plain | p50 µs | p99 µs | requests/s | memory MiB |\n|---|---|---|---|---|---|---|\n", set.name)
	for i, s := range set.scenarios {
		pick := func(f func(result) float64) []float64 {
			var v []float64
			for _, r := range results[i] {
				v = append(v, f(r))
			}
			slices.Sort(v)
			return v
		}
		cpu := pick(func(r result) float64 { return r.cpu })
		fmt.Printf("| %s | %.1f (%.1f..%.1f) | %.3f | %.0f | %.0f | %.0f | %.0f |\n", s.name,
			median(cpu), cpu[0], cpu[len(cpu)-1], median(ratios[i]),
			median(pick(func(r result) float64 { return r.p50 })), median(pick(func(r result) float64 { return r.p99 })),
			median(pick(func(r result) float64 { return r.rate })), gateways[i].memory())
	}
	return nil
}

func median(v []float64) float64 {
	v = slices.Sorted(slices.Values(v))
	return v[len(v)/2]
}

func freeAddr() string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "127.0.0.1:18999"
	}
	defer l.Close()
	return l.Addr().String()
}

func cpuModel() string {
	data, _ := os.ReadFile("/proc/cpuinfo")
	for line := range strings.Lines(string(data)) {
		if name, ok := strings.CutPrefix(line, "model name"); ok {
			return strings.TrimSpace(strings.TrimLeft(name, "\t :"))
		}
	}
	return "unknown CPU"
}

// cpus counts those of the machine: this process may be held to some of them.
func cpus() int {
	data, _ := os.ReadFile("/proc/cpuinfo")
	return max(strings.Count(string(data), "\nprocessor\t")+1, runtime.NumCPU())
}

// join puts a file of the bench directory's own beside the Caddyfiles.
func join(dir, name string) string { return filepath.Join(dir, name) }
