// SPDX-License-Identifier: Apache-2.0

package burnin

import (
	"bytes"
	"cmp"
	"fmt"
	"html"
	"maps"
	"slices"
	"strings"
	"time"
	"unicode"

	"github.com/ironhand/ironhand/inspect"
)

// hypertext is a page in the making. html/template is not used: it calls methods by names that it reads, so the linker would have to keep those that nobody calls, in an agent that is to be small.
type hypertext struct{ bytes.Buffer }

// put writes a format of ours with texts from anywhere, which are escaped: in elements and in attributes with quotes, never anywhere else.
func (h *hypertext) put(format string, texts ...string) {
	escaped := make([]any, len(texts))
	for i, t := range texts {
		escaped[i] = html.EscapeString(shown(t))
	}
	fmt.Fprintf(h, format, escaped...)
}

// raw writes a text of ours.
func (h *hypertext) raw(text string) { h.WriteString(text) }

// shown is a text without what does not print, such as marks that turn the direction of writing.
func shown(text string) string {
	return strings.Map(func(r rune) rune {
		if r == '\n' || r == '\t' {
			return ' '
		}
		if !unicode.IsPrint(r) {
			return '?'
		}
		return r
	}, strings.ToValidUTF8(text, "?"))
}

const pageStyle = `
body{font:15px/1.45 system-ui,"DejaVu Sans",Arial,sans-serif;color:#111;background:#fff;max-width:60rem;margin:1.5rem auto;padding:0 1rem}
h1{font-size:1.5rem;margin:0 0 .3rem}h2{font-size:1.15rem;margin:1.8rem 0 .5rem;border-bottom:1px solid #999}
.verdict{display:flex;gap:1rem;align-items:center;border:2px solid;border-radius:.4rem;padding:.7rem 1rem;margin:1rem 0;font-size:1.05rem}
.verdict b{font-size:1.9rem;letter-spacing:.05em}.PASS{color:#00583c}.FAIL{color:#a32d00}.SKIPPED{color:#5a4a00}
div.PASS{background:#e8f6f0}div.FAIL{background:#fdece4}div.SKIPPED{background:#fff7dc}
table{border-collapse:collapse;width:100%;margin:.3rem 0 1rem;font-size:.9rem}th,td{text-align:left;vertical-align:top;padding:.22rem .5rem;border-bottom:1px solid #ccc;overflow-wrap:anywhere}
th{background:#eee;border-bottom:1px solid #888;white-space:nowrap}td.v{font-weight:bold;white-space:nowrap}
table.parts{table-layout:fixed}table.parts th:first-child{width:5.5rem}table.parts th:nth-child(2){width:40%}
figure{margin:1rem 0 1.4rem;break-inside:avoid}figcaption{font-weight:bold;margin-bottom:.2rem}svg{width:100%;height:auto;display:block}
svg text{font:12px system-ui,"DejaVu Sans",Arial,sans-serif;fill:#222}svg .end{text-anchor:end}svg .middle{text-anchor:middle}
.grid{stroke:#ccc;stroke-width:.7}.axis{stroke:#333;fill:none}.line{fill:none;stroke-width:1.7;stroke-linejoin:round}
.note{color:#444;font-size:.85rem;margin:.2rem 0}dt{font-weight:bold}dd{margin:0 0 .4rem 1.2rem}code{font-family:"DejaVu Sans Mono",monospace}
@media print{body{font-size:10.5pt;margin:0;max-width:none;padding:0}h2{break-after:avoid}tr{break-inside:avoid}div.verdict,rect,path,th{print-color-adjust:exact;-webkit-print-color-adjust:exact}}
`

// reportPage is the report for people: one page that needs nothing but itself, runs nothing, and prints. problems are of reading the inventory.
func reportPage(version string, r Result, i inspect.Inventory, problems error) []byte {
	h := &hypertext{}
	v := i.SystemVendor
	name := cmp.Or(words(v.Manufacturer, v.ProductName), i.Hostname, "this machine")
	h.raw("<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"/>\n<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\"/>\n")
	h.put(`<meta name="viewport" content="width=device-width"/><title>%s: burn-in of %s</title>`, string(r.Verdict), words(name, v.SerialNumber))
	h.raw("<style>" + pageStyle + "</style></head><body>\n")
	h.put("<h1>Burn-in of %s</h1>\n<p>", name)
	if v.SerialNumber != "" {
		h.put("Serial number %s. ", v.SerialNumber)
	}
	h.put("Profile %s, from %s to %s UTC (%s). ironhand %s.</p>\n", cmp.Or(r.Profile, "of its own"), r.Started.UTC().Format("2006-01-02 15:04:05"), r.Ended.UTC().Format("2006-01-02 15:04:05"),
		r.Ended.Sub(r.Started).Round(time.Second).String(), version)

	// 1. The verdict, and why.
	var failed, passed, skipped, told []Part
	for _, l := range r.Loads {
		for _, p := range l.Parts {
			switch {
			case p.Verdict == Fail:
				failed = append(failed, p)
			case p.Verdict == Pass:
				passed = append(passed, p)
			case p.Verdict == Skipped:
				skipped = append(skipped, p)
			default:
				told = append(told, p)
			}
		}
	}
	sentence := map[Verdict]string{
		Pass: "All that was to be tested was tested, and passed.", Fail: "Parts of this machine are broken, or do not do what they should.", Skipped: "Not all was tested. This is no pass.",
	}[r.Verdict]
	h.put(`<div class="verdict %s"><b>%s</b><span>%s<br/>`, string(r.Verdict), string(r.Verdict), sentence)
	h.put("%s passed, %s failed, %s skipped, %s to look at.</span></div>\n", fmt.Sprint(len(passed)), fmt.Sprint(len(failed)), fmt.Sprint(len(skipped)), fmt.Sprint(len(told)))
	if len(r.Problems) > 0 {
		h.raw("<h2>What kept the test from its end</h2>\n<ul>")
		for _, p := range r.Problems {
			h.put("<li>%s</li>", p)
		}
		h.raw("</ul>\n")
	}
	if len(failed) > 0 {
		h.raw("<h2>What failed</h2>\n")
		h.parts(failed)
	}

	// 2. All parts.
	h.raw("<h2>All parts</h2>\n")
	for n, l := range r.Loads {
		name, command, _ := strings.Cut(l.Load, ": ")
		h.put("<p><b>%s. %s</b>, took %s", fmt.Sprint(n+1), name, l.Ended.Sub(l.Started).Round(time.Second).String())
		if command != "" {
			h.put("<br/><span class=\"note\">%s</span>", command)
		}
		h.raw("</p>\n")
		h.parts(l.Parts)
		for _, what := range slices.Sorted(maps.Keys(l.Rates)) {
			h.put("<p class=\"note\">%s: %s %s</p>\n", what, fmt.Sprintf("%.4g", l.Rates[what].Value), l.Rates[what].Unit)
		}
	}
	if len(r.Baseline) > 0 {
		h.raw("<h2>Compared with other runs</h2>\n")
		h.parts(r.Baseline)
	}

	// 3. What was measured.
	h.raw("<h2>Over the time</h2>\n")
	if !h.plot(r, "errors", "Errors that were counted", true, true) {
		h.raw("<p>No counter of errors has grown.</p>\n")
	}
	any := h.plot(r, "temperature", "Temperatures", false, false)
	any = h.plot(r, "frequency", "Frequency of the processors", true, false) || any
	any = h.plot(r, "throughput", "Throughput of disks and interfaces", true, false) || any
	any = h.plot(r, "power", "Power", true, false) || any
	any = h.plot(r, "fan", "Fans", true, false) || any
	any = h.plot(r, "voltage", "Voltages", true, false) || any
	if !any {
		h.raw("<p>This machine has no sensor that the kernel knows.</p>\n")
	}

	// 4. The machine.
	h.inventory(i, problems)

	// 5. How to read it.
	h.raw(`<h2>How to read this</h2>
<dl><dt class="PASS">PASS</dt><dd>The part was under load for the time of the profile, did its work right, and counted no error beyond the limits.</dd>
<dt class="FAIL">FAIL</dt><dd>It did its work wrong, or counted more errors than sound hardware does. The reasons stand beside it.</dd>
<dt class="SKIPPED">SKIPPED</dt><dd>It was not tested, for the reason beside it. Nothing is known of it.</dd>
<dt>to look at</dt><dd>Something was counted that may be harmless, and is no reason to fail. Compare it with other machines.</dd></dl>
<p>A line in a plot is the mean, and the area around it goes from the lowest to the highest sample. Grey and white areas are the loads, one after the other.
<code>results.json</code> has all numbers, <code>results.jsonl</code> the same, coarser, in the form of the Open Compute Project, <code>logs</code> what the programs report. docs/burn-in.md has the limits and the reason of each.</p>
`)
	h.raw("</body></html>\n")
	return h.Bytes()
}

// parts writes a table of verdicts.
func (h *hypertext) parts(list []Part) {
	h.raw("<table class=\"parts\"><tr><th>Verdict</th><th>Part</th><th>Reasons</th></tr>\n")
	for _, p := range list {
		h.put(`<tr><td class="v %s">%s</td><td>%s</td><td>`, string(p.Verdict), cmp.Or(string(p.Verdict), "look at"), p.Name)
		for i, reason := range p.Reasons {
			if i > 0 {
				h.raw("<br/>")
			}
			h.put("%s", reason)
		}
		h.raw("</td></tr>\n")
	}
	h.raw("</table>\n")
}

// words joins those that are there.
func words(list ...string) string { return strings.Join(strings.Fields(strings.Join(list, " ")), " ") }

// row writes a row of a table; what is empty is a dash.
func (h *hypertext) row(cell string, cells ...string) {
	h.raw("<tr>")
	for _, c := range cells {
		h.put("<"+cell+">%s</"+cell+">", cmp.Or(c, "–"))
	}
	h.raw("</tr>\n")
}

// inventory writes what the machine is made of.
func (h *hypertext) inventory(i inspect.Inventory, problems error) {
	v := i.SystemVendor
	h.raw("<h2>The machine</h2>\n<table>")
	h.row("td", "System", words(v.Manufacturer, v.ProductName))
	h.row("td", "Serial number", v.SerialNumber)
	h.row("td", "Firmware", words(v.Firmware.Vendor, v.Firmware.Version, v.Firmware.BuildDate))
	microcode := ""
	if i.CPU.Microcode != "" {
		microcode = ", microcode " + i.CPU.Microcode
	}
	h.row("td", "Processors", fmt.Sprintf("%d × %s, %d threads%s", i.CPU.SocketCount, cmp.Or(i.CPU.ModelName, "processor"), i.CPU.Count, microcode))
	memory := inspect.Size(int64(i.Memory.Total)) + " usable"
	if mb := i.Memory.PhysicalMB; mb != nil {
		memory += ", " + inspect.Size(*mb<<20) + " installed"
	}
	h.row("td", "Memory", memory)
	h.row("td", "BMC", words(strings.TrimPrefix(string(i.BMCAddress), "0.0.0.0"), strings.TrimPrefix(string(i.BMCv6Address), "::/0"), string(i.BMCMAC)))
	h.raw("</table>\n")
	if len(i.Memory.Modules) > 0 {
		h.raw("<table>")
		h.row("th", "Memory slot", "Size", "Type", "Manufacturer", "Part", "Serial number")
		for _, m := range i.Memory.Modules {
			if m.Size > 0 || m.Unknown {
				h.row("td", words(m.Slot, m.Bank), inspect.Size(m.Size), m.Kind, m.Manufacturer, m.Part, m.Serial)
			}
		}
		h.raw("</table>\n")
	}
	if len(i.Disks) > 0 {
		h.raw("<table>")
		h.row("th", "Disk", "Size", "Model", "Serial number", "Firmware", "Place")
		for _, d := range i.Disks {
			place := string(d.HCTL)
			if d.Bay != "" {
				place = "bay " + d.Bay
			}
			vendor := string(d.Vendor)
			if strings.HasPrefix(vendor, "0x") { // a number in place of a name
				vendor = ""
			}
			h.row("td", d.Name, inspect.Size(d.Size), words(vendor, string(d.Model)), string(d.Serial), d.Firmware, place)
		}
		h.raw("</table>\n")
	}
	if len(i.Interfaces) > 0 {
		h.raw("<table>")
		h.row("th", "Interface", "MAC address", "Link", "Driver", "Firmware", "PCI")
		for _, n := range i.Interfaces {
			link := "down"
			if n.HasCarrier {
				link = "up"
				if n.LinkMbps > 0 {
					link = fmt.Sprintf("%g Gbit/s", float64(n.LinkMbps)/1000)
				}
			}
			h.row("td", n.Name, string(n.MACAddress), link, string(n.Driver), n.Firmware, string(n.PCIAddress))
		}
		h.raw("</table>\n")
	}
	if problems != nil {
		h.put("<p class=\"note\">Not all could be read: %s</p>\n", problems.Error())
	}
}
