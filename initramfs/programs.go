// SPDX-License-Identifier: Apache-2.0

package initramfs

import (
	"debug/elf"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/ironhand/ironhand/initramfs/tool"
)

// Programs finds programs and shared libraries of Linux below Root, which is "/", or a directory that packages were
// unpacked to.
type Programs struct {
	Root string
}

// AddTools adds programs that the agent runs, with their links.
func (p Programs) AddTools(a *Archive, tools []tool.Tool) error {
	for _, t := range tools {
		source, err := p.findTool(t)
		if err != nil {
			return err
		}
		if err := p.Add(a, strings.TrimPrefix(t.Path(), "/"), source); err != nil {
			return err
		}
		for _, link := range t.Links() {
			if err := a.Link(strings.TrimPrefix(link, "/"), t.Path()); err != nil {
				return err
			}
		}
	}
	return nil
}

func (p Programs) findTool(t tool.Tool) (string, error) {
	for _, dir := range []string{"usr/sbin", "usr/bin", "sbin", "bin"} {
		source := filepath.Join(p.Root, dir, string(t))
		if info, err := os.Stat(source); err == nil && info.Mode().IsRegular() {
			return source, nil
		}
	}
	return "", fmt.Errorf("program %s: not found below %s: install the Debian package %s", t, p.Root, t.Package())
}

// Add adds the ELF program at source under the path target, with its loader and the shared libraries that it needs,
// which keep their paths.
func (p Programs) Add(a *Archive, target, source string) error {
	if err := a.File(target, 0o755, source); err != nil {
		return err
	}
	if err := p.addNeeded(a, source); err != nil {
		return fmt.Errorf("program %s: %w", source, err)
	}
	return nil
}

// AddStatic adds the program at source, which must be a static ELF program for the processor that others are for.
func AddStatic(a *Archive, target, source string) error {
	f, err := openELF(source)
	if err != nil {
		return fmt.Errorf("program %s: %w", source, err)
	}
	defer f.Close()
	for _, segment := range f.Progs {
		if segment.Type == elf.PT_INTERP {
			return fmt.Errorf("program %s: is linked dynamically; build it with CGO_ENABLED=0", source)
		}
	}
	return a.File(target, 0o755, source)
}

func openELF(source string) (*elf.File, error) {
	f, err := elf.Open(source)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("not an ELF file: %w", err)
	}
	return f, err
}

// addNeeded adds the loader and the libraries of one ELF file, and those of the libraries.
func (p Programs) addNeeded(a *Archive, source string) error {
	f, err := openELF(source)
	if err != nil {
		return err
	}
	defer f.Close()
	for _, segment := range f.Progs {
		if segment.Type != elf.PT_INTERP {
			continue
		}
		b := make([]byte, min(segment.Filesz, 4096))
		if _, err := segment.ReadAt(b, 0); err != nil {
			return fmt.Errorf("read the name of the loader: %w", err)
		}
		loader := strings.TrimRight(string(b), "\x00")
		if err := p.addLibrary(a, loader); err != nil {
			return err
		}
	}
	needed, err := f.DynString(elf.DT_NEEDED)
	if err != nil {
		return fmt.Errorf("read the names of the libraries: %w", err)
	}
	for _, name := range needed {
		library, err := p.findLibrary(f, source, name)
		if err != nil {
			return err
		}
		if err := p.addLibrary(a, library); err != nil {
			return err
		}
	}
	return nil
}

// addLibrary adds the file at the absolute path name below the root, and what it needs.
func (p Programs) addLibrary(a *Archive, name string) error {
	target := strings.TrimPrefix(filepath.Clean(name), "/")
	if a.Has(target) {
		return nil
	}
	source, err := p.resolve(name)
	if err != nil {
		return err
	}
	if err := a.File(target, 0o755, source); err != nil {
		return err
	}
	return p.addNeeded(a, source)
}

// findLibrary looks where the loader looks (ld.so(8)), as far as Debian needs it: the search path in the file that needs
// the library, then the standard directories. It returns an absolute path below the root.
func (p Programs) findLibrary(f *elf.File, source, name string) (string, error) {
	if strings.Contains(name, "/") {
		return name, nil
	}
	var dirs []string
	for _, tag := range []elf.DynTag{elf.DT_RUNPATH, elf.DT_RPATH} {
		paths, err := f.DynString(tag)
		if err != nil {
			return "", fmt.Errorf("read the search path of the libraries: %w", err)
		}
		origin, err := filepath.Rel(p.Root, filepath.Dir(source))
		if err != nil {
			return "", err
		}
		for _, path := range paths {
			path = strings.NewReplacer("$ORIGIN", "/"+origin, "${ORIGIN}", "/"+origin).Replace(path)
			dirs = append(dirs, strings.Split(path, ":")...)
		}
	}
	triplet := map[elf.Machine]string{elf.EM_X86_64: "x86_64-linux-gnu", elf.EM_AARCH64: "aarch64-linux-gnu"}[f.Machine]
	dirs = append(dirs, "/lib/"+triplet, "/usr/lib/"+triplet, "/lib64", "/usr/lib64", "/lib", "/usr/lib")
	for _, dir := range dirs {
		path := filepath.Join("/", dir, name)
		source, err := p.resolve(path)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return "", err
		}
		library, err := openELF(source)
		if err != nil {
			return "", fmt.Errorf("library %s: %w", path, err)
		}
		fits := library.Class == f.Class && library.Machine == f.Machine
		if err := library.Close(); err != nil {
			return "", err
		}
		if fits {
			return path, nil
		}
	}
	return "", fmt.Errorf("library %s: not found in %s below %s", name, strings.Join(dirs, ":"), p.Root)
}

// resolve follows the symbolic links of an absolute path as they are meant below the root.
func (p Programs) resolve(name string) (string, error) {
	const maxLinks = 40 // as in the kernel
	rest := strings.Split(strings.Trim(filepath.Clean(name), "/"), "/")
	at, links := "/", 0
	for len(rest) > 0 {
		element := rest[0]
		rest = rest[1:]
		next := filepath.Join(at, element)
		info, err := os.Lstat(filepath.Join(p.Root, next))
		if err != nil {
			return "", err
		}
		if info.Mode()&fs.ModeSymlink == 0 {
			at = next
			continue
		}
		if links++; links > maxLinks {
			return "", fmt.Errorf("%s: too many symbolic links", name)
		}
		target, err := os.Readlink(filepath.Join(p.Root, next))
		if err != nil {
			return "", err
		}
		if filepath.IsAbs(target) {
			at = "/"
		}
		rest = append(strings.Split(strings.Trim(filepath.Clean(target), "/"), "/"), rest...)
	}
	return filepath.Join(p.Root, at), nil
}
