// Prints, for each array named after the store's path, its shape and the values of one slice, as JSON.
// Usage, from a folder that has zarrita: node read_with_zarrita.mjs STORE '[["name", [[start, stop], ...]], ...]'
import FileSystemStore from "@zarrita/storage/fs";
import * as zarr from "zarrita";

const [, , store, wanted] = process.argv;
const number = (value) => (typeof value === "bigint" ? value.toString() : Number.isNaN(value) ? null : value);
const found = {};
for (const [name, ranges] of JSON.parse(wanted)) {
  const array = await zarr.open(new zarr.Location(new FileSystemStore(store), `/${name}`), { kind: "array" });
  const view = await zarr.get(array, ranges.map(([start, stop]) => zarr.slice(start, stop)));
  found[name] = { shape: array.shape, dtype: array.dtype, sliced: view.shape, values: Array.from(view.data, number) };
}
console.log(JSON.stringify(found));
