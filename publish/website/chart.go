package website

import (
	"fmt"
	"math"
	"slices"
	"strings"
)

// chart is a line of one number over the releases, the oldest first, in a picture
// of 240 × 64 units.
type chart struct {
	Name, Last, Range, Label, Points, X, Y string
}

// charts are the trends of what is known of at least two releases.
func (img *image) charts() []chart {
	var list []chart
	for _, c := range []struct {
		name  string
		value func(*release) (int64, bool)
		text  func(int64) string
	}{
		{"Image size", func(r *release) (int64, bool) {
			f := r.file(".qcow2")
			if f == nil {
				return 0, false
			}
			return f.SizeBytes, true
		}, bytesText},
		{"Packages", func(r *release) (int64, bool) { return int64(r.Packages), r.Packages > 0 }, plainText},
		{"Checks passed", func(r *release) (int64, bool) { return int64(r.Tests.Pass), total(r.Tests) > 0 }, plainText},
		{"Build time", func(r *release) (int64, bool) { return r.BuildMS, r.BuildMS > 0 }, duration},
		{"Boot time", func(r *release) (int64, bool) { return r.BootMS, r.BootMS > 0 }, duration},
		{"Test time", func(r *release) (int64, bool) { return r.TestMS, r.TestMS > 0 }, duration},
	} {
		var values []int64
		for _, r := range slices.Backward(img.releases) {
			if !r.shown() {
				continue
			}
			if v, ok := c.value(r); ok {
				values = append(values, v)
			}
		}
		if len(values) > 1 {
			list = append(list, newChart(c.name, values, c.text))
		}
	}
	return list
}

func plainText(n int64) string { return fmt.Sprint(n) }

func newChart(name string, values []int64, text func(int64) string) chart {
	low, high := slices.Min(values), slices.Max(values)
	var points []string
	x, y := "", ""
	for i, v := range values {
		x = coordinate(6 + 228*float64(i)/float64(len(values)-1))
		y = "32"
		if high > low {
			y = coordinate(58 - 52*float64(v-low)/float64(high-low))
		}
		points = append(points, x+","+y)
	}
	c := chart{Name: name, Last: text(values[len(values)-1]), Points: strings.Join(points, " "), X: x, Y: y}
	c.Range = fmt.Sprintf("%s to %s in %d releases", text(low), text(high), len(values))
	c.Label = name + ": " + c.Last + ", " + c.Range
	return c
}

func coordinate(f float64) string { return fmt.Sprint(math.Round(f*10) / 10) }
