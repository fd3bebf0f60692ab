package builder

// A Checker is a Builder that can tell before it builds what Build would fail
// with, as far as this machine knows: files and names in its configuration that
// are not there. Check only reads. Each message begins with the key of the
// driver's configuration or of the definition that it is about.
type Checker interface {
	Check(spec Spec) error
}
