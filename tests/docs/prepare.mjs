// Prepare pictures with the playground's code, for test_preparation.py. Standard input: JSON [{height, width, greys}].
import { readFileSync } from "node:fs";
import { prepareDigit } from "../../docs/playground/digit.js";

const pictures = JSON.parse(readFileSync(0, "utf8"));
const digits = pictures.map(({ height, width, greys }) => prepareDigit(Buffer.from(greys, "base64"), height, width));
console.log(JSON.stringify(digits.map((digit) => digit && Array.from(digit))));
