package signing

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// Attest digests the named files, which become the subjects of p under their
// base names, and writes the signed envelope of it to path. What is there is
// replaced, by one rename, when the new file is complete. It returns the digests.
func (s *Sealer) Attest(ctx context.Context, path string, p Provenance, files ...string) ([]FileDigest, error) {
	digests, err := s.attest(ctx, path, p, files)
	if err != nil {
		return nil, fmt.Errorf("cannot attest in %s: %w", path, err)
	}
	return digests, nil
}

func (s *Sealer) attest(ctx context.Context, path string, p Provenance, files []string) ([]FileDigest, error) {
	seen := map[string]bool{filepath.Base(path): true}
	for _, file := range files {
		f, err := openFile(file)
		if err != nil {
			return nil, err
		}
		name := filepath.Base(file)
		digest, err := digestOf(ctx, s.digester(), name, f)
		if err := errors.Join(err, f.Close()); err != nil {
			return nil, fmt.Errorf("%s: %w", file, err)
		}
		if seen[name] {
			return nil, fmt.Errorf("%s: the name is there twice", file)
		}
		seen[name] = true
		p.Subjects = append(p.Subjects[:len(p.Subjects):len(p.Subjects)], digest)
	}
	statement, err := p.Statement()
	if err != nil {
		return nil, err
	}
	data, err := s.envelope(ctx, statement)
	if err != nil {
		return nil, err
	}
	dir, name := filepath.Split(path)
	root, err := os.OpenRoot(filepath.Clean(dir + "."))
	if err != nil {
		return nil, err
	}
	defer root.Close()
	st := &stage{root: root, step: s.step}
	return p.Subjects, st.replace(ctx, output{name: name, data: data, mode: 0o644})
}

// Attestation judges the envelope in the named file and whether the other named
// files are subjects of it, by their base names and digests; without such files,
// whether all its subjects are there beside it. The statement may be believed
// only if the error is nil. The results are otherwise those of [Verifier.File].
func (v *Verifier) Attestation(ctx context.Context, path string, files ...string) (*Statement, *Verification, error) {
	data, err := readFile(path, maxEnvelope)
	if err != nil {
		return nil, nil, fmt.Errorf("cannot verify %s: %w", path, err)
	}
	statement, result, err := v.Envelope(ctx, filepath.Base(path), bytes.NewReader(data))
	if err != nil {
		return nil, result, err
	}
	if len(files) == 0 {
		result.Files, err = v.subjectsBeside(ctx, filepath.Dir(path), statement, result.Files)
	} else {
		result.Files, err = v.subjectsAmong(ctx, files, statement, result.Files)
	}
	if err != nil {
		return nil, nil, fmt.Errorf("cannot verify %s: %w", path, err)
	}
	if err := result.Err(); err != nil {
		return nil, result, err
	}
	return statement, result, nil
}

func (v *Verifier) subjectsBeside(ctx context.Context, dir string, statement *Statement, found []File) ([]File, error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, err
	}
	defer root.Close()
	for i := range statement.Subject {
		s := &statement.Subject[i]
		f := File{FileDigest: FileDigest{Name: s.Name}}
		if !goodPath(s.Name, true) {
			f.fail(Bad, BadName, "")
		} else if file, err := openRegular(root, s.Name); err != nil {
			f.fail(statusAndReason(err))
		} else {
			f = v.subject(ctx, file, s, &found[0])
		}
		if f.Reason == FileMissing && v.IgnoreMissing {
			continue
		}
		found = append(found, f)
	}
	if len(found) == 1 {
		found[0].fail(Missing, FileMissing, "none of its subjects is there")
	}
	return found, ctx.Err()
}

func (v *Verifier) subjectsAmong(ctx context.Context, files []string, statement *Statement, found []File) ([]File, error) {
	byName := map[string]*Resource{}
	for i := range statement.Subject {
		byName[statement.Subject[i].Name] = &statement.Subject[i]
	}
	for _, path := range files {
		file, err := openFile(path)
		if err != nil {
			return nil, err
		}
		name := filepath.Base(path)
		s := byName[name]
		if s == nil {
			s = &Resource{Name: name}
		}
		f := v.subject(ctx, file, s, &found[0])
		found = append(found, f)
	}
	return found, ctx.Err()
}

// subject judges and closes one file that the statement in envelope is about.
func (v *Verifier) subject(ctx context.Context, file *os.File, s *Resource, envelope *File) File {
	defer file.Close()
	f := File{FileDigest: FileDigest{Name: s.Name}, Status: Good, Fingerprint: envelope.Fingerprint, SignedAt: envelope.SignedAt}
	digest, err := digestOf(ctx, v.digester(), s.Name, file)
	if err != nil {
		f.fail(Bad, Unreadable, err.Error())
		return f
	}
	f.FileDigest = digest
	switch want := s.Digest["sha256"]; {
	case s.Digest == nil:
		f.fail(Bad, BadProvenance, "the provenance is not about it")
	case !strings.EqualFold(want, digest.SHA256):
		f.fail(Bad, BadProvenance, "the provenance is about another file of that name")
	}
	return f
}
