// SPDX-License-Identifier: Apache-2.0

package image

import (
	"errors"
	"fmt"
	"strings"
)

// statement is one of: a command (words, and the body of menuentry and submenu), an if (branches), a loop, a function.
type statement struct {
	words     []word
	body      []statement
	branches  []branch
	loop      string // "for", "while" or "until"
	variable  string // of for
	condition []statement
	function  string
}

type branch struct{ condition, body []statement }

// word is a sequence of pieces without a blank between them.
type word []piece

type piece struct {
	text     string // or the name of a variable
	variable bool
	quoted   bool
}

// plain is the text of a word without variables and quotes, which alone can be a keyword.
func (w word) plain() string {
	var b strings.Builder
	for _, p := range w {
		if p.variable || p.quoted {
			return ""
		}
		b.WriteString(p.text)
	}
	return b.String()
}

// token is a word, or one of ";" (a line's end, too), "{", "}" and "" at the end.
type token struct {
	word word
	mark string
	line int
}

// parseGrub reads GRUB's language (GRUB manual, section 6).
func parseGrub(s string) ([]statement, error) {
	tokens, err := lexGrub(s)
	if err != nil {
		return nil, err
	}
	p := &grubParser{tokens: tokens}
	list, err := p.list()
	if err == nil && p.next().mark+p.next().word.plain() != "" {
		err = fmt.Errorf("unexpected %q", p.next().mark+p.next().word.plain())
	}
	if err != nil {
		return nil, fmt.Errorf("line %d: %w", p.next().line, err)
	}
	return list, nil
}

// lexGrub splits text into tokens.
func lexGrub(s string) ([]token, error) {
	var tokens []token
	var w word
	line := 1
	add := func(text string, variable, quoted bool) { w = append(w, piece{text, variable, quoted}) }
	end := func() {
		if w != nil {
			tokens = append(tokens, token{word: w, line: line})
			w = nil
		}
	}
	// variable reads what follows "$" at s[i:], and returns where to go on.
	variable := func(i int, quoted bool) int {
		if i < len(s) && s[i] == '{' {
			if n := strings.IndexAny(s[i:], "}\n"); n > 0 && s[i+n] == '}' {
				add(s[i+1:i+n], true, quoted)
				return i + n + 1
			}
		}
		n := 0
		for i+n < len(s) && isNameByte(s[i+n], n) {
			n++
		}
		if n == 0 && i < len(s) && (s[i] == '@' || s[i] == '*' || s[i] == '#' || s[i] == '?') {
			n = 1
		}
		if n == 0 {
			add("$", false, quoted)
		} else {
			add(s[i:i+n], true, quoted)
		}
		return i + n
	}
	for i := 0; i < len(s); {
		switch c := s[i]; c {
		case ' ', '\t', '\r':
			end()
			i++
		case '\n', ';':
			end()
			tokens = append(tokens, token{mark: ";", line: line})
			if c == '\n' {
				line++
			}
			i++
		case '#':
			if w != nil {
				add("#", false, false)
				i++
				continue
			}
			for i < len(s) && s[i] != '\n' {
				i++
			}
		case '{', '}':
			if w == nil {
				tokens = append(tokens, token{mark: string(c), line: line})
			} else {
				add(string(c), false, false)
			}
			i++
		case '\\':
			if i+1 < len(s) && s[i+1] == '\n' {
				line++
			} else if i+1 < len(s) {
				add(s[i+1:i+2], false, true)
			}
			i += 2
		case '\'':
			n := strings.IndexByte(s[i+1:], '\'')
			if n < 0 {
				return nil, fmt.Errorf("line %d: quote without its end", line)
			}
			add(s[i+1:i+1+n], false, true)
			line += strings.Count(s[i+1:i+1+n], "\n")
			i += n + 2
		case '"':
			start := line
			add("", false, true)
			for i++; ; {
				if i >= len(s) {
					return nil, fmt.Errorf("line %d: quote without its end", start)
				}
				if s[i] == '"' {
					i++
					break
				}
				switch {
				case s[i] == '$':
					i = variable(i+1, true)
				case s[i] == '\\' && i+1 < len(s) && strings.IndexByte("$\"\\", s[i+1]) >= 0:
					add(s[i+1:i+2], false, true)
					i += 2
				default:
					n := i + 1
					for n < len(s) && s[n] != '"' && s[n] != '$' && s[n] != '\\' {
						n++
					}
					line += strings.Count(s[i:n], "\n")
					add(s[i:n], false, true)
					i = n
				}
			}
		case '$':
			i = variable(i+1, false)
		default:
			n := i
			for i < len(s) && !strings.ContainsRune(" \t\r\n;#{}\\'\"$", rune(s[i])) {
				i++
			}
			add(s[n:i], false, false)
		}
	}
	end()
	return append(tokens, token{line: line}), nil
}

// isNameByte tells whether a variable's name may have c at place n; $1 and the like are names of one digit.
func isNameByte(c byte, n int) bool {
	return c == '_' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || n >= 0 && c >= '0' && c <= '9'
}

type grubParser struct {
	tokens []token // the last one is the end and stays
	depth  int
}

func (p *grubParser) next() token { return p.tokens[0] }

func (p *grubParser) skip() token {
	t := p.tokens[0]
	if len(p.tokens) > 1 {
		p.tokens = p.tokens[1:]
	}
	return t
}

// keyword skips the next token if it is this keyword.
func (p *grubParser) keyword(k string) bool {
	if p.next().word.plain() != k {
		return false
	}
	p.skip()
	return true
}

func (p *grubParser) expect(what string) error {
	for p.next().mark == ";" {
		p.skip()
	}
	if p.next().mark == what && what != "" {
		p.skip()
		return nil
	}
	if p.keyword(what) {
		return nil
	}
	return fmt.Errorf("%q is missing", what)
}

// list reads statements up to "}", a keyword that ends something, or the end.
func (p *grubParser) list() ([]statement, error) {
	if p.depth++; p.depth > 2*grubDepth {
		return nil, errors.New("too deep")
	}
	defer func() { p.depth-- }()
	var list []statement
	for {
		t := p.next()
		if t.mark == ";" {
			p.skip()
			continue
		}
		if t.mark == "}" || t.word == nil && t.mark == "" {
			return list, nil
		}
		switch t.word.plain() {
		case "then", "elif", "else", "fi", "do", "done":
			return list, nil
		}
		s, err := p.statement()
		if err != nil {
			return nil, err
		}
		list = append(list, s)
	}
}

func (p *grubParser) statement() (s statement, err error) {
	switch k := p.next().word.plain(); k {
	case "if":
		p.skip()
		return p.branches()
	case "for", "while", "until":
		p.skip()
		return p.loop(k)
	case "function":
		p.skip()
		s.function = p.skip().word.plain()
		if s.function == "" {
			return s, errors.New("function without a name")
		}
		if s.body, err = p.block(); err == nil && s.body == nil {
			s.body = []statement{}
		}
		return s, err
	}
	for {
		switch t := p.next(); {
		case t.mark == "{" && len(s.words) > 0:
			s.body, err = p.block()
			return s, err
		case t.mark == "{":
			return s, errors.New("unexpected \"{\"")
		case t.word == nil:
			return s, nil
		default:
			s.words = append(s.words, p.skip().word)
		}
	}
}

func (p *grubParser) block() (list []statement, err error) {
	if err = p.expect("{"); err != nil {
		return nil, err
	}
	if list, err = p.list(); err != nil {
		return nil, err
	}
	return list, p.expect("}")
}

func (p *grubParser) branches() (s statement, err error) {
	for {
		var b branch
		if b.condition, err = p.list(); err != nil {
			return s, err
		}
		if err = p.expect("then"); err != nil {
			return s, err
		}
		if b.body, err = p.list(); err != nil {
			return s, err
		}
		s.branches = append(s.branches, b)
		switch {
		case p.keyword("elif"):
			continue
		case p.keyword("else"):
			var last branch
			if last.body, err = p.list(); err != nil {
				return s, err
			}
			s.branches = append(s.branches, last)
		}
		return s, p.expect("fi")
	}
}

func (p *grubParser) loop(kind string) (s statement, err error) {
	s.loop = kind
	if kind == "for" {
		if s.variable = p.skip().word.plain(); s.variable == "" || !p.keyword("in") {
			return s, errors.New("for without a variable and \"in\"")
		}
		for p.next().word != nil {
			s.words = append(s.words, p.skip().word)
		}
	} else if s.condition, err = p.list(); err != nil {
		return s, err
	}
	if err = p.expect("do"); err != nil {
		return s, err
	}
	if s.body, err = p.list(); err != nil {
		return s, err
	}
	return s, p.expect("done")
}
