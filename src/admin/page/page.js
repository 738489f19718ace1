"use strict";
// Asks /status.json and /events.json again and again and writes what they say into the page. Names
// and reasons come from outside: they become text nodes and attributes' values, never markup.
(() => {
  const EVERY = 1000;
  const PATIENCE = 4000;
  const BACK_OFF_MAX = 15000;
  const SAMPLES = 60;
  const at = (id) => document.getElementById(id);
  const history = new Map();
  let last = null, lastAt = 0, wait = EVERY, timer = 0, asking = false, announced = "";

  const span = (ms) => {
    const s = Math.floor(ms / 1000), two = (n) => String(n).padStart(2, "0");
    if (s < 10) return s + "." + Math.floor(ms % 1000 / 100) + "s";
    if (s < 60) return s + "s";
    if (s < 3600) return Math.floor(s / 60) + "m" + two(s % 60) + "s";
    if (s < 86400) return Math.floor(s / 3600) + "h" + two(Math.floor(s / 60) % 60) + "m";
    return Math.floor(s / 86400) + "d" + Math.floor(s / 3600) % 24 + "h";
  };
  const bytes = (n) => {
    const units = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];
    let unit = 0;
    for (; n >= 1024 && unit < units.length - 1; unit += 1) n /= 1024;
    return (unit && n < 100 ? n.toFixed(1) : Math.round(n)) + " " + units[unit];
  };
  const few = (n) => n >= 10 ? String(Math.round(n)) : String(Math.round(n * 10) / 10);
  const plural = (n, word) => n + " " + word + (n === 1 ? "" : "s");

  // An element, its attributes, and its children: elements or texts.
  const make = (name, attributes, ...children) => {
    const made = document.createElement(name);
    for (const [key, value] of Object.entries(attributes || {})) made.setAttribute(key, value);
    made.append(...children);
    return made;
  };
  // Writes only what differs, so that selections, the focus and screen readers are left in peace.
  const write = (element, text) => {
    if (element.textContent !== text) { element.textContent = text; return true; }
    return false;
  };
  const dress = (element, name) => { if (element.className !== name) element.className = name; };

  // The child of `host` with this key, made if it is missing, in the `index`th place.
  const keyed = (host, key, index, create) => {
    let child = [...host.children].find((one) => one.dataset.key === key);
    if (!child) {
      child = create();
      child.dataset.key = key;
    }
    if (host.children[index] !== child) host.insertBefore(child, host.children[index] || null);
    return child;
  };
  const keep = (host, count) => { while (host.children.length > count) host.lastElementChild.remove(); };

  // A table: columns are [label, kind], rows are [key, cells], a cell is a text or [text, look].
  const table = (host, caption, columns, rows) => {
    let body = host.querySelector("tbody");
    if (!body) {
      const heads = columns.map(([label, kind]) =>
        make("th", { scope: "col", role: "columnheader", class: kind === "number" ? "number" : "" }, label));
      body = make("tbody", { role: "rowgroup" });
      // Cards on a telephone are no table to the browser any more, unless that is said.
      host.append(make("div", { class: "wide", tabindex: "0", role: "group", "aria-label": caption },
        make("table", { role: "table" }, make("caption", {}, caption),
          make("thead", { role: "rowgroup" }, make("tr", { role: "row" }, ...heads)), body)));
    }
    rows.forEach(([key, cells], index) => {
      const row = keyed(body, key, index, () => make("tr", { role: "row" }, ...columns.map(([label, kind], nth) =>
        nth === 0 ? make("th", { scope: "row", role: "rowheader" }, make("span"))
          : make("td", { role: "cell", "data-label": label, class: kind }, make("span")))));
      cells.forEach((cell, nth) => {
        const [text, look] = Array.isArray(cell) ? cell : [cell, ""];
        const inside = row.children[nth].firstElementChild;
        const had = inside.textContent;
        row.children[nth].classList.toggle("empty", text === "");
        dress(inside, look ? "word " + look : "");
        if (write(inside, text) && look && had !== "") inside.classList.add("changed");
      });
    });
    keep(body, rows.length);
  };
  const section = (key, index, title) => {
    const made = keyed(at("sections"), key, index, () => make("section", { "aria-label": title },
      make("h2", {}), make("p", { class: "about" })));
    write(made.querySelector("h2"), title);
    return made;
  };

  const rate = (key, value, uptime) => {
    const kept = history.get(key) || { value, uptime, per: [] };
    const passed = uptime - kept.uptime;
    const fresh = passed < 0 || value < kept.value;
    if (!fresh && passed > 0) {
      kept.per.push((value - kept.value) * 1000 / passed);
      if (kept.per.length > SAMPLES) kept.per.shift();
    }
    kept.value = value;
    kept.uptime = uptime;
    history.set(key, kept);
    return kept.per.length ? kept.per[kept.per.length - 1] : null;
  };
  const perSecond = (value, shape) => value === null ? "–" : shape(value);
  const draw = (host, key, label) => {
    const per = (history.get(key) || { per: [] }).per;
    const top = Math.max(1, ...per);
    const NS = "http://www.w3.org/2000/svg";
    let svg = host.querySelector("svg");
    if (!svg) {
      svg = document.createElementNS(NS, "svg");
      svg.setAttribute("class", "spark");
      svg.setAttribute("role", "img");
      svg.setAttribute("viewBox", "0 0 " + (SAMPLES - 1) + " 20");
      svg.setAttribute("preserveAspectRatio", "none");
      const path = document.createElementNS(NS, "polyline");
      for (const [name, value] of [["fill", "none"], ["stroke", "currentColor"], ["stroke-width", "1.5"],
        ["vector-effect", "non-scaling-stroke"]]) path.setAttribute(name, value);
      svg.append(path);
      host.append(svg);
    }
    const points = per.map((value, nth) => (SAMPLES - per.length + nth) + "," + (19 - 18 * value / top).toFixed(1));
    svg.firstChild.setAttribute("points", points.join(" "));
    svg.setAttribute("aria-label", label + ", the last minute, at most " + few(Math.max(0, ...per)) + " per second");
  };

  const STATES = {
    active: ["active (MASTER)", "good"], backup: ["backup", "off"], leaving: ["leaving", "warn"],
    initialize: ["initialize", "warn"],
  };
  const state = (word) => STATES[word] || [word, "warn"];
  const peerName = (vip, address) => {
    const peer = vip.peers.find((one) => one.address === address);
    return peer && peer.name ? peer.name + " (" + address + ")" : address;
  };
  const holder = (vip) => vip.holds ? "this node" : vip.active ? peerName(vip, vip.active) : "nobody this node hears";

  const vips = (status, index) => {
    const vrrp = status.vrrp;
    if (!vrrp || vrrp.vips.length + vrrp.routes.length === 0) return index;
    const host = section("vips", index, "Virtual IPs");
    const old = status.process.keeper_heard_ms === null || status.process.keeper_heard_ms >= 2000;
    const held = vrrp.vips.some((vip) => vip.held_back !== null);
    write(host.querySelector(".about"), old ? "Last known: the keeper is silent."
      : held ? "Held back after a failover, until it is over or lbd failover --cancel." : "");
    const rows = vrrp.vips.map((vip) => [vip.name, [
      vip.name, vip.addresses.join(", "), state(vip.state), holder(vip), span(vip.since_ms), vip.reason,
      vip.effective_priority + (vip.effective_priority === vip.base_priority ? "" : " of " + vip.base_priority),
      String(vip.counters.became_active + vip.counters.left_active),
    ]]).concat(vrrp.routes.map((route) => [route.name, [
      route.name, route.addresses.join(", "), route.announced ? ["announced", "good"] : ["withdrawn", "bad"], "by route",
      span(route.since_ms), route.reason, "–", String(route.counters.announced + route.counters.withdrawn),
    ]]));
    table(host, "Virtual IPs", [["VIP"], ["Address", "address"], ["State here", ""], ["Held by", "text"], ["For", "number"],
      ["Why", "text"], ["Priority", "number"], ["Moves", "number"]], rows);
    return index + 1;
  };

  const nodes = (status, index) => {
    const vrrp = status.vrrp;
    if (!vrrp || vrrp.vips.length === 0) return index;
    const host = section("nodes", index, "Nodes");
    const serves = status.proxies.every((proxy) => proxy.probed && proxy.usable > 0) && status.process.serving;
    const rows = [];
    for (const vip of vrrp.vips) {
      const name = vrrp.vips.length > 1 ? " · " + vip.name : "";
      rows.push([vip.name + "/", [(status.process.name || "this node") + name, state(vip.state),
        String(vip.effective_priority), serves ? ["yes", "good"] : ["no", "bad"], String(status.process.connections),
        "this node", status.process.version]]);
      for (const peer of vip.peers) {
        const told = vrrp.channel && vrrp.channel.nodes.find((node) => node.address === peer.address);
        const view = told && told.routers.find((one) => one.vip === vip.name);
        const age = told && told.heard_ms !== null ? told.heard_ms : peer.last_advert_age_ms;
        const known = view && told.reachable;
        rows.push([vip.name + "/" + peer.address, [(peer.name || peer.address) + name,
          known ? state(view.state) : peer.address === vip.active ? state("active")
            : told && told.heard_ms !== null && !told.reachable ? ["silent", "bad"] : ["–", ""],
          known ? String(view.priority) : peer.priority === null ? "–" : String(peer.priority),
          known ? told.can_serve ? ["yes", "good"] : ["no", "bad"] : "–",
          known ? String(told.clients) : "–",
          age === null ? "never" : span(age) + " ago", known ? told.version : "–"]]);
      }
    }
    write(host.querySelector(".about"), vrrp.channel ? ""
      : "What other nodes say of themselves needs [peer] in lb.toml; shown is what their adverts tell.");
    table(host, "Nodes", [["Node"], ["State", ""], ["Priority", "number"], ["Serves", ""], ["Clients", "number"],
      ["Heard", "number"], ["Version", ""]], rows);
    return index + 1;
  };

  const server = (proxy, one, uptime) => {
    const key = proxy.name + "/" + one.name;
    const held = one.standing.ejected_ms !== null ? "ejected" : one.standing.missing > 0 ? "not believed yet" : "";
    const looks = { up: "good", down: "bad", unknown: "warn", drain: "warn", maint: "off" };
    let word = one.state, look = looks[one.state] || "warn";
    if (one.state === "up" && held) { word = "up (" + held + ")"; look = "warn"; }
    else if (one.state === "up" && one.ramp_ms !== null) word = "up (slowstart)";
    const check = one.reason !== null ? one.reason
      : one.check_micros === null ? "–" : "ok in " + (one.check_micros / 1000).toFixed(1) + "ms";
    return [one.name, [one.name, one.address, [word, look], span(one.since_ms), check, String(one.weight),
      one.connections + (one.max_connections === null ? "" : "/" + one.max_connections),
      perSecond(rate(key + " new", one.connected, uptime), few),
      perSecond(rate(key + " in", one.bytes_in, uptime), bytes), perSecond(rate(key + " out", one.bytes_out, uptime), bytes),
      String(one.connect_errors + one.connect_timeouts + one.aborts)]];
  };
  const proxies = (status, index) => {
    const uptime = status.process.uptime_ms;
    for (const proxy of status.proxies) {
      const key = "proxy " + proxy.name;
      const host = section(key, index, "Proxy " + proxy.name + " on " + proxy.listen.join(", "));
      const fresh = rate(key, proxy.totals.accepted, uptime);
      const up = proxy.servers.filter((one) => one.state === "up").length;
      const failed = proxy.totals.failed.reduce((sum, [, count]) => sum + count, 0);
      const about = host.querySelector(".about");
      if (!about.firstElementChild) about.append(make("span"));
      write(about.firstElementChild, up + " of " + plural(proxy.servers.length, "server") + " up · "
        + plural(proxy.connections, "connection") + (proxy.max_connections === null ? "" : " of " + proxy.max_connections)
        + " · " + perSecond(fresh, few) + " new/s · queue " + proxy.queue + " of " + proxy.max_queue
        + " · failed " + failed);
      draw(about, key, "New connections of " + proxy.name);
      table(host, "Servers of " + proxy.name, [["Server"], ["Address", "address"], ["State", ""], ["For", "number"],
        ["Check", "text"], ["Weight", "number"], ["Conns", "number"], ["New/s", "number"], ["In/s", "number"],
        ["Out/s", "number"], ["Errors", "number"]], proxy.servers.map((one) => server(proxy, one, uptime)));
      index += 1;
    }
    return index;
  };

  const events = (told, index) => {
    const host = section("events", index, "Events");
    write(host.querySelector(".about"), told.length ? "" : "Nothing has happened since the daemon began.");
    if (told.length === 0) return index + 1;
    const rows = told.slice(-20).reverse().map((event) => {
      const about = [event.vip, event.subject].filter((part) => part !== null).join(" ");
      const change = event.from !== null && event.to !== null ? event.from + " → " + event.to : "";
      const when = new Date(event.at_ms);
      return [String(event.seq), [when.toLocaleString([], { hourCycle: "h23" }), event.kind, about, change, event.reason]];
    });
    table(host, "Events, the latest first", [["When"], ["What", ""], ["About", "text"], ["Change", "text"],
      ["Why", "text"]], rows);
    return index + 1;
  };

  // What is worth a word to those who listen: no times that pass, no numbers that run.
  const essence = (status) => {
    const words = (status.vrrp ? status.vrrp.vips : []).map((vip) => "VIP " + vip.name + " held by " + holder(vip));
    for (const proxy of status.proxies) {
      const ill = proxy.servers.filter((one) => one.state !== "up").map((one) => one.name + " " + one.state);
      words.push(proxy.name + ": " + (ill.length ? ill.join(", ") : "all servers up"));
    }
    return words.join(". ");
  };

  const show = (status, told) => {
    const process = status.process, count = status.problems.length;
    const name = process.name || process.node || location.host;
    write(at("node"), name);
    dress(at("pill"), "pill " + (count ? "bad" : "good"));
    write(at("pill"), count ? "✖ " + plural(count, "problem") : "✔ all is well");
    const title = (count ? "✖ " : "✔ ") + name + " – lbd";
    if (document.title !== title) document.title = title;
    // The problems stand below, one by one.
    const headline = status.problems.reduce((text, problem) => text === problem ? ""
      : text.replace("; " + problem, "").replace(problem + "; ", ""), status.headline);
    write(at("headline"), headline);
    const list = at("problems");
    status.problems.forEach((problem, nth) => write(keyed(list, String(nth), nth, () => make("li")), problem));
    keep(list, count);
    let index = vips(status, 0);
    index = nodes(status, index);
    index = proxies(status, index);
    index = events(told, index);
    keep(at("sections"), index);
    write(at("process"), "lbd " + process.version + " · up " + span(process.uptime_ms) + " · "
      + plural(process.connections, "connection") + " of " + process.max_connections + " · "
      + plural(process.workers, "worker") + " · " + process.config_path);
    const now = essence(status);
    if (now !== announced) { announced = now; write(at("announce"), now); }
  };

  const age = () => {
    if (last === null) return;
    const passed = Date.now() - lastAt;
    write(at("fresh"), passed < 2000 ? "live" : "as of " + span(passed) + " ago");
  };
  const lost = (why) => {
    // The words stay the same while it lasts: an alert is read out each time it changes.
    const said = last === null ? "lbd unreachable: " + why
      : "lbd unreachable: " + why + ". What stands below is old.";
    write(at("lost"), said);
    document.body.classList.add("stale");
    dress(at("pill"), "pill bad");
    write(at("pill"), "✖ unreachable");
    document.title = "✖ unreachable – lbd";
  };
  const fetched = async (path) => {
    const answer = await fetch(path, { cache: "no-store", signal: AbortSignal.timeout(PATIENCE) });
    if (!answer.ok) throw new Error("it answers " + answer.status);
    return answer.json();
  };
  const ask = async () => {
    if (asking) return;
    asking = true;
    clearTimeout(timer);
    try {
      const [status, told] = await Promise.all([fetched("/status.json"), fetched("/events.json")]);
      if (status.v !== 1) throw new Error("it speaks version " + status.v + " of the format, this page 1: load it again");
      show(status, told.events);
      last = status;
      lastAt = Date.now();
      wait = EVERY;
      write(at("lost"), "");
      document.body.classList.remove("stale");
    } catch (error) {
      wait = Math.min(BACK_OFF_MAX, wait * 2);
      lost(error.name === "TimeoutError" ? "no answer in time" : error.name === "TypeError" && error.message.includes("fetch")
        ? "nobody answers" : error.message);
    }
    asking = false;
    age();
    if (!document.hidden) timer = setTimeout(ask, wait);
  };
  setInterval(age, 1000);
  // Nobody looks: nobody is asked.
  document.addEventListener("visibilitychange", () => { if (!document.hidden) { wait = EVERY; ask(); } });
  ask();
})();
