// Writes abi/NAME.json for every contract that is deployed, or with --check compares them. What other languages need, and nothing that depends
// on the folder or the machine.
"use strict";
const fs = require("fs");
const path = require("path");

const root = path.join(__dirname, "..");
// Each contract, and whose errors can come out of it besides its own.
const contracts = {
  TestToken: [],
  EmbeddedBeacon: [],
  BlockhashBeacon: [],
  Blake3Paths: [],
  Agreements: [],
  Possession: [],
  StorageMarket: ["Agreements", "Possession", "IChunkPaths", "IProviderRegistry"],
  ProviderRegistry: ["IStorageMarket"],
  RetrievalChannels: [],
  DatasetRegistry: [],
  AuditAnchor: [],
  Directory: [],
};

const built = (name) => JSON.parse(fs.readFileSync(path.join(root, "out", `${name}.sol`, `${name}.json`), "utf8"));
const links = ({ object, linkReferences }) =>
  Object.fromEntries(
    Object.values(linkReferences).flatMap((libraries) =>
      Object.entries(libraries).map(([library, [{ start, length }]]) => [
        object.replace(/^0x/, "").slice(2 * start, 2 * (start + length)),
        library,
      ]),
    ),
  );

let stale = 0;
for (const [name, raises] of Object.entries(contracts)) {
  const { abi, bytecode, deployedBytecode } = built(name);
  const known = new Set(abi.map((entry) => JSON.stringify(entry)));
  for (const other of raises) {
    for (const entry of built(other).abi) {
      const text = JSON.stringify(entry);
      if (entry.type === "error" && !known.has(text)) {
        known.add(text);
        abi.push(entry);
      }
    }
  }
  const artifact = { abi, bytecode: bytecode.object, deployedBytecode: deployedBytecode.object, links: links(bytecode) };
  const text = JSON.stringify(artifact, null, 1) + "\n";
  const file = path.join(root, "abi", `${name}.json`);
  if (!process.argv.includes("--check")) fs.writeFileSync(file, text);
  else if (!fs.existsSync(file) || fs.readFileSync(file, "utf8") !== text) {
    console.error(`abi/${name}.json is not what the source gives: run contracts/build.sh and commit it`);
    stale += 1;
  }
}
process.exit(stale === 0 ? 0 : 1);
