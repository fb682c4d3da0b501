#!/usr/bin/env node
// The compiler that forge calls: the `solc` package from npm behind the three options that forge, slither and halmos use.
// It exists because native compilers can't be had from a package registry. It reads no file outside the given paths.
"use strict";
const fs = require("fs");
const path = require("path");
const solc = require("solc");

const arguments_ = process.argv.slice(2);
if (arguments_.includes("--version")) {
  process.stdout.write(`solc, the solidity compiler commandline interface\nVersion: ${solc.version()}\n`);
  process.exit(0);
}

const option = (name) => {
  const found = [];
  arguments_.forEach((argument, at) => argument === name && found.push(arguments_[at + 1]));
  return found;
};
const folders = [...option("--base-path"), ...option("--include-path"), process.cwd()];

function importedFile(name) {
  for (const folder of folders) {
    const file = path.resolve(folder, name);
    if (fs.existsSync(file)) return { contents: fs.readFileSync(file, "utf8") };
  }
  return { error: `${name} is in none of ${folders.join(", ")}` };
}

const last = arguments_[arguments_.length - 1];
const input = fs.readFileSync(last && last.endsWith(".json") && fs.existsSync(last) ? last : 0, "utf8");
const output = Buffer.from(solc.compile(input, { import: importedFile }));

// A pipe takes part of a large answer and then asks to be tried again.
for (let written = 0; written < output.length; ) {
  try {
    written += fs.writeSync(1, output, written);
  } catch (error) {
    if (error.code !== "EAGAIN") throw error;
  }
}
