// Command benchqcow2 compares bin/qcow2 with qemu-img as whole processes, on
// the same files, in turns, and prints medians and their ratios. What writes is
// compared twice: both leave the output to the system, and both wait until it
// is on the disk ("synced"). Converting is compared with go-qcow2reader too
// ("reader").
//
//	benchqcow2 [-bin bin/qcow2] [-dir DIR] [-rounds 5] [-only NAME]
//
// The files are an ext4 disk of 4 GiB with about 1.7 GB of this machine's
// /usr, stored plain, with zlib and with zstd, and the zlib one grown to
// 20 GiB; and disks of 40 GiB that are nearly all holes. They are made in DIR and kept there for the next run; about 8 GB
// must be free. Each file is read once before it is used, so that the page
// cache is warm for both.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/lima-vm/go-qcow2reader/convert"
	theirs "github.com/lima-vm/go-qcow2reader/image/qcow2"

	"github.com/opentelekomcloud/go-imagefactory/qcow2/qcow2reader"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	err := run(ctx)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "benchqcow2:", err)
		os.Exit(2)
	}
}

func run(ctx context.Context) error {
	bin := flag.String("bin", "bin/qcow2", "the `program` to measure")
	dir := flag.String("dir", filepath.Join(os.TempDir(), "benchqcow2"), "`directory` of the files")
	rounds := flag.Int("rounds", 5, "`number` of turns")
	only := flag.String("only", "", "only measurements whose name contains `text`")
	reader := flag.Bool("reader", false, "only convert the image of the first argument to the raw file of the second, with go-qcow2reader")
	flag.Parse()
	if *reader {
		return convertWithReader(flag.Arg(0), flag.Arg(1))
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	program, err := filepath.Abs(*bin)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(*dir, 0o755); err != nil {
		return err
	}
	if err := prepare(ctx, *dir); err != nil {
		return err
	}
	fmt.Printf("%-30s %21s %21s %7s %7s %9s\n", "medians of "+fmt.Sprint(*rounds), "peer wall (cpu)", "qcow2 wall (cpu)", "ratio", "goal", "peak MiB")
	for _, m := range measurements(program, self) {
		if !strings.Contains(m.name, *only) {
			continue
		}
		if err := m.measure(ctx, *dir, *rounds); err != nil {
			return fmt.Errorf("%s: %w", m.name, err)
		}
	}
	return nil
}

// convertWithReader is the peer that is not qemu-img: go-qcow2reader, as its
// own program uses it.
func convertWithReader(from, to string) error {
	theirs.SetDecompressor(theirs.CompressionTypeZstd, qcow2reader.Zstd)
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	image, err := theirs.Open(in, nil)
	if err != nil {
		return err
	}
	defer image.Close()
	out, err := os.Create(to)
	if err != nil {
		return err
	}
	return errors.Join(convert.Convert(out, image, convert.Options{}), out.Truncate(image.Size()), out.Close())
}

// measurement compares two command lines, each a sequence of programs.
type measurement struct {
	name       string
	peer, ours [][]string
	goal       float64 // greatest ratio of wall times
	sizes      [2]string
}

func measurements(program, self string) []measurement {
	var out []measurement
	for _, file := range []string{"plain", "zlib", "zstd", "large"} {
		image := file + ".qcow2"
		out = append(out, measurement{name: "check " + file, goal: 1,
			peer: [][]string{{"qemu-img", "check", image}}, ours: [][]string{{program, "check", image}}})
		goal := 1.0
		if file == "zstd" {
			goal = 0.8
		}
		toRaw := []string{"qemu-img", "convert", "-m", "16", "-W", "-O", "raw", image, "peer.raw"}
		// qemu-img leaves the output to the system, unless -t says otherwise;
		// ours brings it to the disk.
		synced := []string{"qemu-img", "convert", "-t", "writeback", "-m", "16", "-W", "-O", "raw", image, "peer.raw"}
		out = append(out,
			measurement{name: "convert " + file, goal: goal, peer: [][]string{toRaw}, ours: [][]string{{program, "convert", "-sync=false", image, "ours.raw"}}},
			measurement{name: "convert " + file + ", synced", goal: goal, peer: [][]string{synced}, ours: [][]string{{program, "convert", image, "ours.raw"}}},
			measurement{name: "convert " + file + ", reader", goal: 1, peer: [][]string{{self, "-reader", image, "peer.raw"}}, ours: [][]string{{program, "convert", "-sync=false", image, "ours.raw"}}},
			measurement{name: "digest " + file, goal: goal, peer: [][]string{toRaw, {"sha256sum", "peer.raw"}}, ours: [][]string{{program, "digest", image}}})
	}
	out = append(out, measurement{name: "compare zlib zstd", goal: 1,
		peer: [][]string{{"qemu-img", "compare", "zlib.qcow2", "zstd.qcow2"}}, ours: [][]string{{program, "compare", "zlib.qcow2", "zstd.qcow2"}}})
	out = append(out, holes(program)...)
	for kind, goal := range map[string]float64{"zstd": 0.7, "zlib": 0.6} {
		out = append(out, measurement{name: "compact " + kind, goal: goal, sizes: [2]string{"peer.qcow2", "ours.qcow2"},
			peer: [][]string{{"qemu-img", "convert", "-t", "writeback", "-c", "-O", "qcow2", "-o", "compression_type=" + kind, "plain.qcow2", "peer.qcow2"}},
			ours: [][]string{{program, "compact", "-compression", kind, "plain.qcow2", "ours.qcow2"}}})
	}
	return out
}

// holes measures disks of 40 GiB of which 100 MiB were written: one whose
// clusters all have a place in a file with holes, one in a data file of its
// own, and that data file as a raw disk.
func holes(program string) []measurement {
	const metadata, external, raw = "metadata.qcow2", "external.qcow2", "external.data"
	return []measurement{
		{name: "check holes", goal: 1,
			peer: [][]string{{"qemu-img", "check", metadata}}, ours: [][]string{{program, "check", metadata}}},
		{name: "compare holes", goal: 1,
			peer: [][]string{{"qemu-img", "compare", metadata, metadata}}, ours: [][]string{{program, "compare", metadata, metadata}}},
		{name: "compare holes raw", goal: 1,
			peer: [][]string{{"qemu-img", "compare", "-F", "raw", metadata, raw}}, ours: [][]string{{program, "compare", "-F", "raw", metadata, raw}}},
		{name: "compact data file", goal: 1,
			peer: [][]string{{"qemu-img", "convert", "-c", "-O", "qcow2", external, "peer.qcow2"}},
			ours: [][]string{{program, "compact", "-sync=false", "-files", ".", external, "ours.qcow2"}}},
		{name: "convert holes", goal: 1,
			peer: [][]string{{"qemu-img", "convert", "-m", "16", "-W", "-O", "raw", metadata, "peer.raw"}},
			ours: [][]string{{program, "convert", "-sync=false", metadata, "ours.raw"}}},
		{name: "compact holes", goal: 1,
			peer: [][]string{{"qemu-img", "convert", "-c", "-O", "qcow2", metadata, "peer.qcow2"}},
			ours: [][]string{{program, "compact", "-sync=false", metadata, "ours.qcow2"}}},
	}
}

// cost is what one run took.
type cost struct {
	wall, cpu time.Duration
	peakKiB   int64
}

// measure runs both sides in turns.
func (m measurement) measure(ctx context.Context, dir string, rounds int) error {
	var peer, ours []cost
	for range rounds {
		for _, side := range []struct {
			steps [][]string
			costs *[]cost
		}{{m.peer, &peer}, {m.ours, &ours}} {
			// Both write new files.
			for _, name := range []string{"peer.raw", "ours.raw", "peer.qcow2", "ours.qcow2"} {
				if len(m.sizes[0]) > 0 && strings.HasSuffix(name, ".qcow2") && strings.HasPrefix(name, "peer") != (side.costs == &peer) {
					continue // the other side's result, for its size
				}
				if err := os.Remove(filepath.Join(dir, name)); err != nil && !errors.Is(err, os.ErrNotExist) {
					return err
				}
			}
			c, err := execute(ctx, dir, side.steps)
			if err != nil {
				return err
			}
			*side.costs = append(*side.costs, c)
		}
	}
	p, o := median(peer), median(ours)
	fmt.Printf("%-30s %11.3f s (%5.2f) %11.3f s (%5.2f) %7.2f %7.2f %9.1f\n", m.name, p.wall.Seconds(), p.cpu.Seconds(),
		o.wall.Seconds(), o.cpu.Seconds(), o.wall.Seconds()/p.wall.Seconds(), m.goal, float64(o.peakKiB)/1024)
	if m.sizes[0] != "" {
		return sizes(dir, m)
	}
	return nil
}

func sizes(dir string, m measurement) error {
	var bytes [2]int64
	for n, name := range m.sizes {
		stat, err := os.Stat(filepath.Join(dir, name))
		if err != nil {
			return err
		}
		bytes[n] = stat.Size()
	}
	fmt.Printf("%-30s %15d bytes %15d bytes %7.3f %7.2f\n", m.name+" size", bytes[0], bytes[1], float64(bytes[1])/float64(bytes[0]), 1.02)
	return nil
}

// execute runs the steps and adds up what they took.
func execute(ctx context.Context, dir string, steps [][]string) (cost, error) {
	var sum cost
	for _, argv := range steps {
		cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
		cmd.Dir = dir
		start := time.Now()
		out, err := cmd.CombinedOutput()
		if err != nil {
			return sum, fmt.Errorf("%v: %w: %s", argv, err, out)
		}
		sum.wall += time.Since(start)
		sum.cpu += cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()
		if usage, ok := cmd.ProcessState.SysUsage().(*syscall.Rusage); ok {
			sum.peakKiB = max(sum.peakKiB, int64(usage.Maxrss)) //nolint:unconvert // 32 bits on some machines
		}
	}
	return sum, nil
}

func median(all []cost) cost {
	pick := func(of func(cost) int64) int64 {
		values := make([]int64, len(all))
		for n, c := range all {
			values[n] = of(c)
		}
		slices.Sort(values)
		return values[len(values)/2]
	}
	return cost{
		wall:    time.Duration(pick(func(c cost) int64 { return int64(c.wall) })),
		cpu:     time.Duration(pick(func(c cost) int64 { return int64(c.cpu) })),
		peakKiB: pick(func(c cost) int64 { return c.peakKiB }),
	}
}

// prepare makes the files that are not there, and reads all of them.
func prepare(ctx context.Context, dir string) error {
	makeFile := func(name string, steps ...[]string) error {
		path := filepath.Join(dir, name)
		if _, err := os.Stat(path); err == nil {
			return nil
		}
		fmt.Fprintln(os.Stderr, "making", path)
		_, err := execute(ctx, dir, append(steps, []string{"mv", name + ".new", name}))
		return err
	}
	if _, err := os.Stat(filepath.Join(dir, "disk.raw")); err != nil {
		if err := sample(dir); err != nil {
			return err
		}
	}
	if err := makeFile("disk.raw", []string{"truncate", "-s", "4G", "disk.raw.new"},
		[]string{"mkfs.ext4", "-q", "-F", "-d", "sample", "disk.raw.new"}, []string{"rm", "-r", "sample"}); err != nil {
		return err
	}
	fill := func(name string) []string {
		return []string{"qemu-io", "-f", "qcow2", "-c", "write -P 7 20G 100M", name + ".qcow2.new"}
	}
	create := []string{"qemu-img", "create", "-q", "-f", "qcow2", "-o"}
	toQCOW2 := []string{"qemu-img", "convert", "-O", "qcow2"}
	if err := errors.Join(
		makeFile("plain.qcow2", append(toQCOW2, "disk.raw", "plain.qcow2.new")),
		makeFile("zlib.qcow2", append(toQCOW2, "-c", "disk.raw", "zlib.qcow2.new")),
		makeFile("zstd.qcow2", append(toQCOW2, "-c", "-o", "compression_type=zstd", "disk.raw", "zstd.qcow2.new")),
		makeFile("metadata.qcow2", append(create, "preallocation=metadata", "metadata.qcow2.new", "40G"), fill("metadata")),
		makeFile("external.qcow2", append(create, "data_file=external.data,data_file_raw=on", "external.qcow2.new", "40G"), fill("external")),
		makeFile("large.qcow2", []string{"cp", "zlib.qcow2", "large.qcow2.new"}, []string{"qemu-img", "resize", "-q", "large.qcow2.new", "20G"}),
	); err != nil {
		return err
	}
	for _, name := range []string{"plain", "zlib", "zstd", "large"} {
		f, err := os.Open(filepath.Join(dir, name+".qcow2"))
		if err != nil {
			return err
		}
		_, err = io.Copy(io.Discard, f)
		if err := errors.Join(err, f.Close()); err != nil {
			return err
		}
	}
	return nil
}

// sample copies about 1.7 GB of /usr, every file up to 64 MiB in the order of
// their names.
func sample(dir string) error {
	const enough, largest = 1_700_000_000, 64 << 20
	total := int64(0)
	return filepath.WalkDir("/usr", func(path string, entry os.DirEntry, err error) error {
		if err != nil || !entry.Type().IsRegular() {
			return nil //nolint:nilerr // what cannot be read is left out
		}
		info, err := entry.Info()
		if err != nil || info.Size() > largest {
			return nil //nolint:nilerr // likewise
		}
		if total += info.Size(); total > enough {
			return filepath.SkipAll
		}
		to := filepath.Join(dir, "sample", path)
		if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
			return err
		}
		return copyFile(to, path)
	})
}

// copyFile copies piece by piece: a child's peak memory as Linux counts it is at
// least that of the process that started it.
func copyFile(to, from string) error {
	src, err := os.Open(from)
	if err != nil {
		return nil
	}
	defer src.Close()
	dst, err := os.Create(to)
	if err != nil {
		return err
	}
	_, err = io.Copy(dst, src)
	return errors.Join(err, dst.Close())
}
