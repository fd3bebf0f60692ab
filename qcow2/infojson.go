package qcow2

// The layout of `qemu-img info --output=json` (qapi/block-core.json,
// ImageInfo), with our additions behind QEMU's fields.
type jsonInfo struct {
	VirtualSize    int64          `json:"virtual-size"`
	ClusterSize    int64          `json:"cluster-size"`
	Format         string         `json:"format"`
	Encrypted      bool           `json:"encrypted,omitempty"`
	BackingFile    string         `json:"backing-filename,omitempty"`
	BackingFormat  string         `json:"backing-filename-format,omitempty"`
	DirtyFlag      bool           `json:"dirty-flag"`
	Snapshots      []jsonSnapshot `json:"snapshots,omitempty"`
	FormatSpecific jsonSpecific   `json:"format-specific"`

	FileSize       int64             `json:"file-size"`
	ImageEndOffset int64             `json:"image-end-offset,omitempty"`
	Header         jsonHeader        `json:"header"`
	Extensions     []jsonExtension   `json:"extensions"`
	FeatureNames   []jsonFeatureName `json:"feature-names,omitempty"`
}

type jsonSnapshot struct {
	ID          string  `json:"id"`
	Name        string  `json:"name"`
	VMStateSize uint64  `json:"vm-state-size"`
	DateSec     int64   `json:"date-sec"`
	DateNsec    int64   `json:"date-nsec"`
	VMClockSec  int64   `json:"vm-clock-sec"`
	VMClockNsec int64   `json:"vm-clock-nsec"`
	ICount      *uint64 `json:"icount,omitempty"`
	DiskSize    *uint64 `json:"disk-size,omitempty"` // ours, where it is not the virtual size
}

type jsonSpecific struct {
	Type string       `json:"type"`
	Data jsonSpecData `json:"data"`
}

// jsonSpecData is ImageInfoSpecificQCow2. QEMU leaves out for compat 0.10
// what only version 3 has.
type jsonSpecData struct {
	Compat        string       `json:"compat"`
	Compression   string       `json:"compression-type"`
	LazyRefcounts *bool        `json:"lazy-refcounts,omitempty"`
	RefcountBits  int          `json:"refcount-bits"`
	Corrupt       *bool        `json:"corrupt,omitempty"`
	ExtendedL2    *bool        `json:"extended-l2,omitempty"`
	DataFile      string       `json:"data-file,omitempty"`
	DataFileRaw   *bool        `json:"data-file-raw,omitempty"`
	Encrypt       *jsonEncrypt `json:"encrypt,omitempty"`
	Bitmaps       []jsonBitmap `json:"bitmaps,omitempty"`
}

type jsonEncrypt struct {
	Format string `json:"format"`
}

type jsonBitmap struct {
	Name        string   `json:"name"`
	Granularity uint64   `json:"granularity"`
	Flags       []string `json:"flags"`
}

type jsonHeader struct {
	Version               uint32 `json:"version"`
	ClusterBits           uint32 `json:"cluster-bits"`
	CryptMethod           uint32 `json:"crypt-method"`
	L1Size                uint32 `json:"l1-size"`
	L1TableOffset         uint64 `json:"l1-table-offset"`
	RefcountTableOffset   uint64 `json:"refcount-table-offset"`
	RefcountTableClusters uint32 `json:"refcount-table-clusters"`
	SnapshotCount         uint32 `json:"nb-snapshots"`
	SnapshotsOffset       uint64 `json:"snapshots-offset"`
	Incompatible          string `json:"incompatible-features"`
	Compatible            string `json:"compatible-features"`
	Autoclear             string `json:"autoclear-features"`
	RefcountOrder         uint32 `json:"refcount-order"`
	HeaderLength          uint32 `json:"header-length"`
}

type jsonExtension struct {
	Type   string `json:"type"`
	Number uint32 `json:"number"`
	Offset int64  `json:"offset"`
	Length int    `json:"length"`
}

type jsonFeatureName struct {
	Kind string `json:"kind"`
	Bit  uint8  `json:"bit"`
	Name string `json:"name"`
}

func (i *Info) jsonView() jsonInfo {
	h := &i.Header
	out := jsonInfo{
		VirtualSize: i.VirtualSize, ClusterSize: i.ClusterSize, Format: "qcow2",
		Encrypted: h.CryptMethod != 0, BackingFile: i.BackingFile, BackingFormat: i.BackingFormat,
		DirtyFlag: h.Incompatible.Has(Dirty), FormatSpecific: i.jsonSpecific(),
		FileSize: i.FileSize, ImageEndOffset: i.ImageEndOffset,
		Header: jsonHeader{
			Version: h.Version, ClusterBits: h.ClusterBits, CryptMethod: h.CryptMethod,
			L1Size: h.L1Size, L1TableOffset: h.L1TableOffset,
			RefcountTableOffset: h.RefcountTableOffset, RefcountTableClusters: h.RefcountTableClusters,
			SnapshotCount: h.SnapshotCount, SnapshotsOffset: h.SnapshotsOffset,
			Incompatible: h.Incompatible.String(), Compatible: h.Compatible.String(),
			Autoclear: h.Autoclear.String(), RefcountOrder: h.RefcountOrder, HeaderLength: h.HeaderLength,
		},
		Extensions: []jsonExtension{},
	}
	for _, s := range i.Snapshots {
		j := jsonSnapshot{ID: s.ID, Name: s.Name, VMStateSize: s.VMStateSize,
			DateSec: s.Time.Unix(), DateNsec: int64(s.Time.Nanosecond()),
			VMClockSec: int64(s.VMClock / 1e9), VMClockNsec: int64(s.VMClock % 1e9)}
		if s.ICount != ^uint64(0) {
			j.ICount = &s.ICount
		}
		if s.VirtualSize != uint64(i.VirtualSize) {
			j.DiskSize = &s.VirtualSize
		}
		out.Snapshots = append(out.Snapshots, j)
	}
	for _, e := range i.Extensions {
		out.Extensions = append(out.Extensions, jsonExtension{e.Type.String(), uint32(e.Type), e.Offset, len(e.Data)})
	}
	for _, f := range i.FeatureNames {
		out.FeatureNames = append(out.FeatureNames, jsonFeatureName(f))
	}
	return out
}

func (i *Info) jsonSpecific() jsonSpecific {
	h := &i.Header
	d := jsonSpecData{Compat: "0.10", Compression: h.Compression.String(), RefcountBits: 16}
	if h.RefcountOrder <= maxRefcountOrder {
		d.RefcountBits = 1 << h.RefcountOrder
	}
	if h.Version >= 3 {
		lazy, corrupt, ext := h.Compatible&LazyRefcounts != 0, h.Incompatible.Has(Corrupt), h.Incompatible.Has(ExtendedL2)
		d.Compat, d.LazyRefcounts, d.Corrupt, d.ExtendedL2 = "1.1", &lazy, &corrupt, &ext
	}
	if h.Incompatible.Has(ExternalData) {
		d.DataFile, d.DataFileRaw = i.DataFile, &i.DataFileRaw
	}
	switch h.CryptMethod {
	case 1:
		d.Encrypt = &jsonEncrypt{"aes"}
	case 2:
		d.Encrypt = &jsonEncrypt{"luks"}
	}
	for _, b := range i.Bitmaps {
		flags := []string{}
		if b.Flags&1 != 0 {
			flags = append(flags, "in-use")
		}
		if b.Flags&2 != 0 {
			flags = append(flags, "auto")
		}
		d.Bitmaps = append(d.Bitmaps, jsonBitmap{b.Name, b.Granularity, flags})
	}
	return jsonSpecific{"qcow2", d}
}
