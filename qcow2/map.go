package qcow2

import (
	"cmp"
	"context"
	"fmt"
	"iter"
	"strconv"
)

// An Extent is a part of the guest's disk that is one thing. The JSON names
// are those of `qemu-img map --output=json`.
type Extent struct {
	Start      int64 `json:"start"`      // in the guest's disk, bytes
	Length     int64 `json:"length"`     // bytes, never 0
	Depth      int   `json:"depth"`      // 0 is the image itself, 1 its backing file, …
	Present    bool  `json:"present"`    // some file of the chain says what is here
	Zero       bool  `json:"zero"`       // reads as zero
	Data       bool  `json:"data"`       // has data in a file
	Compressed bool  `json:"compressed"` // the data is compressed
	Offset     int64 `json:"-"`          // of its clusters in their file; -1 if it has none or is compressed
}

// MarshalJSON leaves "offset" out where there is none.
func (e Extent) MarshalJSON() ([]byte, error) {
	b := make([]byte, 0, 160)
	b = strconv.AppendInt(append(b, `{"start":`...), e.Start, 10)
	b = strconv.AppendInt(append(b, `,"length":`...), e.Length, 10)
	b = strconv.AppendInt(append(b, `,"depth":`...), int64(e.Depth), 10)
	b = strconv.AppendBool(append(b, `,"present":`...), e.Present)
	b = strconv.AppendBool(append(b, `,"zero":`...), e.Zero)
	b = strconv.AppendBool(append(b, `,"data":`...), e.Data)
	b = strconv.AppendBool(append(b, `,"compressed":`...), e.Compressed)
	if e.Offset >= 0 {
		b = strconv.AppendInt(append(b, `,"offset":`...), e.Offset, 10)
	}
	return append(b, '}'), nil
}

// Map goes through the extents of the guest's disk in order, each as long as
// possible. It ends with the first error; between two extents, and within long
// ones, it ends with that of ctx.
func (i *Image) Map(ctx context.Context) iter.Seq2[Extent, error] {
	return func(yield func(Extent, error) bool) {
		walk := newWalker(i, toMap)
		var last Extent
		for off := int64(0); off < i.virtual; {
			e, err := walk.extent(off, i.virtual)
			if err = cmp.Or(ctx.Err(), err); err != nil {
				if last.Length == 0 || yield(last, nil) {
					yield(Extent{}, err)
				}
				return
			}
			next := e.exported()
			off += e.length
			if last.Length > 0 && last.continues(next) {
				last.Length += next.Length
				continue
			}
			if last.Length > 0 && !yield(last, nil) {
				return
			}
			last = next
		}
		if last.Length > 0 {
			yield(last, nil)
		}
	}
}

// ExtentAt returns the extent that begins at off, which lies in the disk, or a
// part of it.
func (i *Image) ExtentAt(off int64) (Extent, error) {
	if off < 0 || off >= i.virtual {
		return Extent{}, fmt.Errorf("cannot map the guest's disk: the offset %d is not in it", off)
	}
	e, err := i.extent(off, i.virtual, nil)
	if err != nil {
		return Extent{}, err
	}
	return e.exported(), nil
}

func (e *extent) exported() Extent {
	out := Extent{Start: e.start, Length: e.length, Depth: e.depth, Present: e.layer != nil,
		Zero: e.zero(), Data: !e.zero(), Compressed: e.kind == kindCompressed, Offset: -1}
	if e.kind == kindNormal || e.kind == kindZeroAlloc {
		out.Offset = e.host
	}
	return out
}

// continues says whether next can be a part of the same extent.
func (e Extent) continues(next Extent) bool {
	if e.Offset >= 0 && next.Offset != e.Offset+e.Length || e.Offset < 0 && next.Offset >= 0 {
		return false
	}
	return e.Depth == next.Depth && e.Present == next.Present && e.Zero == next.Zero &&
		e.Data == next.Data && e.Compressed == next.Compressed
}
