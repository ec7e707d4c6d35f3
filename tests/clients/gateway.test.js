// The official clients for Node in front of a gateway: WORKROOM is its address, KEY an API
// key, MODELS what it is to be asked for. The model counts: "Say 3 words".

import assert from "node:assert/strict";
import { test } from "node:test";

import Anthropic from "@anthropic-ai/sdk";
import OpenAI from "openai";

const { WORKROOM, KEY } = process.env;
const MODELS = process.env.MODELS.split(",");
const COUNTED = "w0001 w0002 w0003";

const options = { apiKey: KEY, maxRetries: 0 };
const openai = new OpenAI({ ...options, baseURL: `${WORKROOM}/v1` });
const anthropic = new Anthropic({ ...options, baseURL: WORKROOM });
const messages = [{ role: "user", content: "Say 3 words" }];

for (const model of MODELS) {
  test(`a chat completion by ${model}`, async () => {
    const whole = await openai.chat.completions.create({ model, messages });
    const stream = openai.chat.completions.stream({ model, messages });
    const streamed = await stream.finalChatCompletion();

    assert.equal(whole.choices[0].message.content, COUNTED);
    assert.equal(streamed.choices[0].message.content, COUNTED);
    assert.equal(whole.usage.completion_tokens, 3);
  });

  test(`a response by ${model}`, async () => {
    const input = "Say 3 words";
    const whole = await openai.responses.create({ model, input });
    const streamed = await openai.responses.stream({ model, input }).finalResponse();

    assert.equal(whole.output_text, COUNTED);
    assert.equal(streamed.output_text, COUNTED);
    assert.equal(streamed.usage.output_tokens, 3);
  });

  test(`a message by ${model}`, async () => {
    const asked = { model, max_tokens: 100, messages };
    const whole = await anthropic.messages.create(asked);
    const streamed = await anthropic.messages.stream(asked).finalMessage();

    assert.equal(whole.content[0].text, COUNTED);
    assert.deepEqual(streamed.content[0].text, COUNTED);
    assert.equal(streamed.usage.output_tokens, 3);
    assert.equal(streamed.stop_reason, "end_turn");
  });
}

test("errors are the clients' own", async () => {
  const model = MODELS[0];
  const wrong = { apiKey: "wr_wrong" };
  await assert.rejects(
    openai.withOptions(wrong).chat.completions.create({ model, messages }),
    OpenAI.AuthenticationError,
  );
  await assert.rejects(
    anthropic.withOptions(wrong).messages.create({ model, max_tokens: 1, messages }),
    Anthropic.AuthenticationError,
  );
  await assert.rejects(
    openai.responses.create({ model: "nobody/none", input: "Hello" }),
    OpenAI.NotFoundError,
  );
  await assert.rejects(
    anthropic.messages.create({ model: "nobody/none", max_tokens: 1, messages }),
    Anthropic.NotFoundError,
  );
  await assert.rejects(
    openai.chat.completions.create({ model, messages: [] }),
    (error) => error instanceof OpenAI.BadRequestError && error.param === "messages",
  );
});
