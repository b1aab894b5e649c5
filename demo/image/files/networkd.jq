# SPDX-License-Identifier: Apache-2.0
#
# OpenStack network_data.json -> systemd.network(5) files, one per link of type phy: {"name": ..., "text": ...}.
# Addresses are static; the prefix comes with the address, as a number or as a mask.

def bits:  # "255.255.255.0", "ffff:ffff::" or "24" -> 24
  if test("^[0-9]+$") then tonumber
  elif contains(":") then
    [split(":")[] | ascii_downcase | explode[] | {"102": 4, "101": 3, "99": 2, "56": 1, "48": 0}["\(.)"] // 0] | add // 0
  else [split(".")[] | tonumber | [., 128, 64, 32, 16, 8, 4, 2, 1] | .[0] as $byte | .[1:][] | select(($byte / .) % 2 >= 1)] | length
  end;

def prefix($address; $mask):  # "192.0.2.10/24"
  if ($address | contains("/")) then $address
  elif $mask == null then $address + (if ($address | contains(":")) then "/64" else "/24" end)
  else "\($address)/\($mask | tostring | bits)"
  end;

. as $data
| $data.links // [] | .[]
| select(.type == "phy" or .type == "physical" or .type == null)
| . as $link
| [$data.networks // [] | .[] | select(.link == $link.id)] as $networks
| {
    name: "10-\($link.ethernet_mac_address | ascii_downcase | gsub("[^0-9a-f]"; "")).network",
    text: ([
      "[Match]",
      "PermanentMACAddress=\($link.ethernet_mac_address)",
      (if $link.mtu then "", "[Link]", "MTUBytes=\($link.mtu)" else empty end),
      "",
      "[Network]",
      "DHCP=no",
      "IPv6AcceptRA=no",
      ($networks[] | select(.ip_address) | "Address=\(prefix(.ip_address; .netmask))"),
      ($networks[] | select(.gateway) | "Gateway=\(.gateway)"),
      ($networks[].routes // [] | .[] | "", "[Route]", "Destination=\(prefix(.network; .netmask))", "Gateway=\(.gateway)"),
      ""
    ] | join("\n"))
  }
