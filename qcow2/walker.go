package qcow2

import "context"

// A walker goes through a disk from its beginning to its end. It remembers
// what each layer said last, so that a long run of one layer is found once,
// however many pieces another layer parts it into. It is not for concurrent
// use.
type walker struct {
	image  *Image
	what   purpose
	layers []walkedLayer // by depth
	zeros  int64         // the disk reads as zero up to here from where it was asked last
}

type walkedLayer struct {
	last  extent // empty before the first
	holes *holes // nil if the file cannot be asked
}

// newWalker returns a walker toMap or toWork. The latter takes holes of the
// files for zeros. The caller must close it.
func newWalker(image *Image, what purpose) *walker {
	w := &walker{image: image, what: what}
	for layer := image; layer != nil; layer = layer.backing {
		var l walkedLayer
		if what == toWork {
			l.holes = newHoles(layer.dataFile)
		}
		w.layers = append(w.layers, l)
	}
	return w
}

func (w *walker) close() {
	for _, l := range w.layers {
		l.holes.close()
	}
}

// extent returns what begins at off and goes on at most to end.
func (w *walker) extent(off, end int64) (extent, error) {
	e, err := w.image.extent(off, end, w)
	if err == nil && e.kind == kindNormal {
		e.length, e.hole = w.layers[e.depth].holes.at(e.host, e.length)
	}
	return e, err
}

// own is Image.own with memory. It keeps what the layer says beyond end too.
func (w *walker) own(layer *Image, e *extent, end int64) error {
	last := &w.layers[e.depth].last
	if e.start < last.start || e.start >= last.end() {
		next := extent{start: e.start}
		if err := layer.own(&next, layer.virtual, w.what); err != nil {
			return err
		}
		*last = next
	}
	e.kind, e.host, e.length = last.kind, last.host, min(last.end(), end)-e.start
	if e.kind == kindNormal || e.kind == kindZeroAlloc {
		e.host += e.start - last.start
	}
	return nil
}

// part returns the part that begins at off, which is a multiple of grain.
// Zeros go on at most to end, a multiple of grain or the disk's end.
func (w *walker) part(ctx context.Context, off, end int64) (part, error) {
	at := max(off, min(w.zeros, end))
	for at < end {
		if err := ctx.Err(); err != nil {
			return part{}, err
		}
		e, err := w.extent(at, end)
		if err != nil {
			return part{}, err
		}
		if !e.zero() {
			break
		}
		at += e.length
	}
	w.zeros = at
	if at < end {
		at &^= grain - 1
	}
	if at > off {
		return part{start: off, length: at - off, zero: true}, nil
	}
	end, err := w.dataEnd(off, end)
	return part{start: off, length: end - off}, err
}

// dataEnd returns where the data at off ends: with the part, or where a grain
// of zeros or more follows.
func (w *walker) dataEnd(off, end int64) (int64, error) {
	size := w.image.partSize()
	if left := size - off&(size-1); left < end-off {
		end = off + left
	}
	for at := off; at < end; {
		e, err := w.extent(at, end)
		if err != nil {
			return end, err
		}
		if start := (at + grain - 1) &^ (grain - 1); e.zero() && start > off && (e.end() >= start+grain || e.end() == end) {
			return min(start, end), nil
		}
		at = e.end()
	}
	return end, nil
}

// partSize is the length of the image's parts: whole clusters.
func (i *Image) partSize() int64 { return max(partBytes, i.cluster) }
