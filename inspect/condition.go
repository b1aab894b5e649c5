// SPDX-License-Identifier: Apache-2.0

package inspect

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
)

// A condition is one hint: what to look at, how to compare, and with what. The language is that of oslo.utils
// (oslo_utils/specs_matcher.py) with the conventions of ironic_python_agent/device_hints.py.
type condition struct {
	hint   string
	wanted string // as the user wrote it

	operator  string    // empty only for rotational
	texts     []string  // normalised, for operators on texts; several for <or>
	numbers   []float64 // for operators on numbers; both ends for <range-in>
	openLow   bool      // <range-in> ( a b: without the lower end
	openHigh  bool
	rotating  bool // for rotational
	wantsSize bool
}

// operators are tried in this order, in which none is hidden by a shorter one that it begins with.
func operators() []string {
	return []string{"<range-in>", "<all-in>", "<in>", "<or>", "s==", "s!=", "s<=", "s>=", "s<", "s>",
		"==", "!=", "<=", ">=", "=", "<", ">"}
}

// leadingOperator returns the operator that an expression begins with; empty if there is none.
func leadingOperator(expression string) string {
	for _, op := range operators() {
		if strings.HasPrefix(expression, op) {
			return op
		}
	}
	return ""
}

// onNumbers tells whether the operator compares numbers.
func onNumbers(operator string) bool {
	return slices.Contains([]string{"==", "!=", "<=", ">=", "=", "<", ">", "<range-in>"}, operator)
}

// parseCondition reads the JSON value of a hint.
func parseCondition(hint string, value json.RawMessage) (condition, error) {
	var text string
	switch isText := json.Unmarshal(value, &text) == nil && string(value) != "null"; {
	case isText:
	case hint == "size" || hint == "rotational": // may be a number or a boolean as well
		text = string(value)
	default:
		return condition{}, fmt.Errorf("value %s is no text", shorten(string(value)))
	}
	c := condition{hint: hint, wanted: strings.TrimSpace(text), wantsSize: hint == "size"}
	if hint == "rotational" {
		var err error
		c.rotating, err = parseBool(text)
		return c, err
	}

	expression := strings.ToLower(c.wanted)
	if expression == "" {
		return condition{}, errors.New("value is empty")
	}
	c.operator = leadingOperator(expression)
	rest := strings.TrimSpace(strings.TrimPrefix(expression, c.operator))
	if rest == "" {
		return condition{}, fmt.Errorf("nothing follows %s", c.operator)
	}
	twice := c.operator != "" && (leadingOperator(rest) != "" || strings.Contains(rest, " "+c.operator+" "))
	if c.operator == "" { // equality
		c.operator = "s=="
		if c.wantsSize {
			c.operator = "=="
		}
	}

	var err error
	switch {
	case c.operator == "<all-in>":
		err = errors.New("<all-in> needs a list, and no property of a disk is one")
	case c.operator == "<range-in>":
		err = c.parseRange(strings.Fields(rest))
	case c.operator == "<or>":
		err = c.parseAlternatives(strings.Split(rest, "<or>"))
	case twice:
		err = fmt.Errorf("one operator too many in %q", shorten(c.wanted))
	case c.wantsSize && !onNumbers(c.operator):
		err = fmt.Errorf("%s compares texts, and a size is a number", c.operator)
	case onNumbers(c.operator):
		err = c.parseNumber(rest)
	default:
		c.texts = []string{normalise(rest)}
	}
	return c, err
}

// parseNumber takes one number for the hint: of a size a whole positive number of GiB.
func (c *condition) parseNumber(s string) error {
	if c.wantsSize {
		n, err := strconv.ParseInt(s, 10, 64)
		if err != nil {
			return fmt.Errorf("%q is no whole number of GiB", shorten(s))
		}
		if n <= 0 {
			return fmt.Errorf("%d GiB is no size", n)
		}
		c.numbers = append(c.numbers, float64(n))
		return nil
	}
	n, err := parseFloat(s)
	if err != nil {
		return fmt.Errorf("%s compares numbers, and %w", c.operator, err)
	}
	c.numbers = append(c.numbers, n)
	return nil
}

func parseFloat(s string) (float64, error) {
	n, err := strconv.ParseFloat(s, 64)
	if err != nil || math.IsNaN(n) {
		return 0, fmt.Errorf("%q is no number", shorten(s))
	}
	return n, nil
}

// parseAlternatives takes the values between <or>.
func (c *condition) parseAlternatives(values []string) error {
	for _, v := range values {
		v = strings.TrimSpace(v)
		if v == "" {
			continue
		}
		if c.wantsSize {
			if err := c.parseNumber(v); err != nil {
				return err
			}
			continue
		}
		c.texts = append(c.texts, normalise(v))
	}
	if len(c.texts)+len(c.numbers) == 0 {
		return fmt.Errorf("no value in %q", shorten(c.wanted))
	}
	return nil
}

// parseRange takes [ 10 20 ], ( 10 20 ), or one bracket of each kind.
func (c *condition) parseRange(words []string) error {
	if len(words) != 4 || words[0] != "[" && words[0] != "(" || words[3] != "]" && words[3] != ")" {
		return fmt.Errorf("%q is not <range-in> and two numbers in brackets, all apart: <range-in> [ 100 500 )", shorten(c.wanted))
	}
	c.openLow, c.openHigh = words[0] == "(", words[3] == ")"
	for _, s := range words[1:3] {
		n, err := parseFloat(s)
		if err != nil {
			return err
		}
		c.numbers = append(c.numbers, n)
	}
	if c.numbers[0] > c.numbers[1] {
		return fmt.Errorf("%s is more than %s", words[1], words[2])
	}
	return nil
}

// parseBool takes what oslo.utils takes (oslo_utils/strutils.py, bool_from_string, strict).
func parseBool(s string) (bool, error) {
	switch strings.ToLower(strings.TrimSpace(s)) {
	case "1", "t", "true", "on", "y", "yes":
		return true, nil
	case "0", "f", "false", "off", "n", "no":
		return false, nil
	}
	return false, fmt.Errorf("%s is neither true nor false", shorten(s))
}

// fits tells whether the disk does. It is an error to compare what is no number as a number.
//
// A disk has several serial numbers and WWNs, and one that fits is enough; but "not X" excludes a disk that has X under
// any name. A disk without any never fits. Among several values those that are no numbers do not count.
func (c condition) fits(d Disk) (bool, error) {
	if slices.Contains(d.Unread, c.hint) {
		return false, fmt.Errorf("%w: %s", ErrUnread, c.hint)
	}
	if c.hint == "rotational" {
		return d.Rotational == c.rotating, nil
	}
	if c.wantsSize {
		return c.fitsNumber(float64(d.Size) / (1 << 30)), nil
	}

	had := attribute(d, c.hint)
	if !slices.Contains([]string{"serial", "wwn"}, c.hint) {
		if len(had) == 0 {
			had = []string{"none"} // how Python writes that there is nothing
		}
	}
	fitting, compared, wrong := 0, 0, error(nil)
	for _, v := range had {
		ok, err := c.fitsText(normalise(v))
		if err != nil {
			wrong = err
			continue
		}
		compared++
		if ok {
			fitting++
		}
	}
	if len(had) == 1 && wrong != nil {
		return false, wrong
	}
	if c.operator == "!=" || c.operator == "s!=" {
		return compared > 0 && fitting == compared, nil
	}
	return fitting > 0, nil
}

// fitsText compares one normalised value of the disk.
func (c condition) fitsText(v string) (bool, error) {
	if onNumbers(c.operator) {
		n, err := parseFloat(v)
		if err != nil {
			return false, fmt.Errorf("%s compares numbers, and %s %w", c.operator, c.hint, err)
		}
		return c.fitsNumber(n), nil
	}
	want := c.texts[0]
	switch c.operator {
	case "<in>":
		return strings.Contains(v, want), nil
	case "<or>":
		return slices.Contains(c.texts, v), nil
	case "s==":
		return v == want, nil
	case "s!=":
		return v != want, nil
	case "s<":
		return v < want, nil
	case "s<=":
		return v <= want, nil
	case "s>":
		return v > want, nil
	case "s>=":
		return v >= want, nil
	}
	return false, fmt.Errorf("no operator %q on texts", c.operator) // not reached: parseCondition made it
}

// fitsNumber compares a number.
func (c condition) fitsNumber(n float64) bool {
	want := c.numbers[0]
	switch c.operator {
	case "==", "<or>":
		return slices.Contains(c.numbers, n)
	case "!=":
		return n != want
	case "<":
		return n < want
	case "<=":
		return n <= want
	case ">":
		return n > want
	case ">=", "=": // "=" means this in all of OpenStack, by history
		return n >= want
	case "<range-in>":
		low, high := c.numbers[0], c.numbers[1]
		return (n > low || n == low && !c.openLow) && (n < high || n == high && !c.openHigh)
	}
	return false
}

// had returns the disk's value for people.
func (c condition) had(d Disk) string {
	switch c.hint {
	case "size":
		return humanSize(d.Size)
	case "rotational":
		return strconv.FormatBool(d.Rotational)
	}
	had := attribute(d, c.hint)
	if len(had) > 1 {
		had = had[:1] // the others are spellings of it
	}
	return shorten(strings.Join(had, " "))
}

// attribute returns the values of the disk that a hint on texts is compared with.
func attribute(d Disk, hint string) []string {
	var list []string
	switch hint {
	case "model":
		list = []string{string(d.Model)}
	case "vendor":
		list = []string{string(d.Vendor)}
	case "serial":
		list = append([]string{string(d.Serial)}, d.Serials...)
	case "wwn":
		list = append([]string{string(d.WWN)}, d.WWNs...)
	case "wwn_with_extension":
		list = []string{string(d.WWNWithExtension)}
	case "wwn_vendor_extension":
		list = []string{string(d.WWNVendorExtension)}
	case "name":
		list = []string{d.Name}
	case "hctl":
		list = []string{string(d.HCTL)}
	case "by_path":
		list = append([]string{string(d.ByPath)}, d.ByPaths...)
	case "tran":
		list = []string{string(d.Tran)}
	}
	if slices.Contains([]string{"name", "hctl", "by_path"}, hint) {
		for _, p := range d.Paths {
			list = append(list, attribute(p, hint)...)
		}
	}
	return distinct(list...)
}

// normalise makes texts comparable: no blanks around, lower case, and all but letters, digits and _.-~/ as %XX.
func normalise(s string) string {
	const hexDigits = "0123456789ABCDEF"
	var out strings.Builder
	for _, c := range []byte(strings.ToLower(strings.TrimSpace(s))) {
		switch {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', digit(c), strings.IndexByte("_.-~/", c) >= 0:
			out.WriteByte(c)
		default:
			out.Write([]byte{'%', hexDigits[c>>4], hexDigits[c&0xf]})
		}
	}
	return out.String()
}

// shorten bounds what an error message repeats.
func shorten(s string) string {
	const most = 80
	if len(s) <= most {
		return s
	}
	return strings.ToValidUTF8(s[:most], "") + "..."
}
