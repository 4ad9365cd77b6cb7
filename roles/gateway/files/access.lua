  -- What a key may do. nginx asks this before it passes a request on, and never during an answer.
  -- The unit forbids memory that is written and run, which the compiler would need.
  require("jit").off()
  local json = require("cjson.safe")
  local ffi = require("ffi")
  ffi.cdef("unsigned char *SHA256(const unsigned char *text, size_t length, unsigned char *digest);")
  local settings = json.decode(data)
  local digest = ffi.new("unsigned char[32]")
  local gateway = {}

  -- An error in the form that OpenAI's clients read, and Anthropic's.
  local function refuse(status, kind, code, message, retry_s)
    ngx.status = status
    ngx.header["Content-Type"] = "application/json"
    ngx.header["Retry-After"] = retry_s
    local what = {message = message, type = kind, param = json.null, code = code}
    ngx.print(json.encode({type = "error", error = what}), "\n")
    return ngx.exit(ngx.HTTP_OK)
  end

  local function of_request()
    local key = ngx.var.http_x_api_key
    if not key or key == "" then
      key = (ngx.var.http_authorization or ""):match("^[Bb]earer ([^ ]+)$") or ""
    end
    ffi.C.SHA256(key, #key, digest)
    local text = ffi.string(digest, 32):gsub(".", function(byte) return ("%02x"):format(byte:byte()) end)
    return settings.clients[text]
  end

  -- The name of the client whose key came along, or nothing.
  function gateway.client()
    local client = of_request()
    ngx.ctx.client = client
    return client and client.name or ""
  end

  local function check_tokens(client)
    if not client.tokens_per_day then
      return
    end
    -- gpunode-usage writes the day into a file for each client that has used its tokens.
    local file = io.open(settings.over .. "/" .. client.name)
    local over = file and file:read("*l")
    if file then
      file:close()
    end
    if over ~= os.date("!%Y-%m-%d", ngx.time()) then
      return
    end
    local left = 86400 - ngx.time() % 86400
    local at = os.date("!%Y-%m-%dT%H:%M:%SZ", ngx.time() + left)
    local message = "This key has used its %d tokens of today. They are renewed at %s, in %d s."
    return refuse(429, "tokens", "rate_limit_exceeded", message:format(client.tokens_per_day, at, left), left)
  end

  -- The router's other names of models, read anew at most every 5 s: nodes come and go without a reload of nginx.
  local others, read_at = {}, -5
  local function canonical(name)
    if settings.others and ngx.now() - read_at >= 5 then
      local file = io.open(settings.others)
      others = file and json.decode(file:read("*a")) or others
      read_at = ngx.now()
      if file then
        file:close()
      end
    end
    return others[name] or name
  end

  local function may_use(client, ...)
    if not client.models then
      return true
    end
    for _, wanted in ipairs({...}) do
      for _, model in ipairs(client.models) do
        if canonical(model) == canonical(wanted) then
          return true
        end
      end
    end
    return false
  end

  local function refuse_model(name, client)
    local message = "This key may not use the model %s. It may use %s."
    message = message:format(name, table.concat(client.models, ", "))
    return refuse(403, "invalid_request_error", "model_not_allowed", message)
  end

  -- Go on only with a key that is valid, has tokens left, and may use the model of this path, which has these names.
  function gateway.check(...)
    local client = ngx.ctx.client
    if client.ends and ngx.time() >= client.ends then
      ngx.header["WWW-Authenticate"] = "Bearer"
      local message = "This key was valid until " .. client.expires .. ", and is no more."
      return refuse(401, "invalid_request_error", "expired_api_key", message)
    end
    check_tokens(client)
    if select("#", ...) > 0 and not may_use(client, ...) then
      return refuse_model((...), client)
    end
  end

  -- Where the text of "model" stands at the top level of a JSON object, without its quotation marks. Nothing if it is not
  -- there, is no plain text, or is there twice: the engine may read another one than this.
  local function model_at(body)
    local depth, at, from, to = 0, 1, nil, nil
    while true do
      local here = body:find('["{}%[%]]', at)
      if not here then
        return from, to
      end
      local sign = body:sub(here, here)
      at = here + 1
      if sign == '"' then
        local ends = at
        while true do
          ends = body:find('["\\]', ends)
          if not ends then
            return nil
          elseif body:sub(ends, ends) == '"' then
            break
          end
          ends = ends + 2
        end
        local value = depth == 1 and body:match("^[ \t\r\n]*:[ \t\r\n]*()", ends + 1)
        if value and json.decode(body:sub(here, ends)) == "model" then
          local last = body:match('^"[^"\\]*()"', value)
          if from or not last then
            return nil
          end
          from, to = value + 1, last - 1
          at = last + 1
        else
          at = ends + 1
        end
      else
        depth = depth + ((sign == "{" or sign == "[") and 1 or -1)
      end
    end
  end

  local function body_of_request()
    ngx.req.read_body()
    local body = ngx.req.get_body_data()
    if body then
      return body
    end
    -- Beyond client_body_buffer_size it is in a file, in memory as well.
    local file = io.open(ngx.req.get_body_file() or "")
    local text = file and file:read("*a") or ""
    if file then
      file:close()
    end
    return text
  end

  -- The model that a name stands for, if it is one of ours: one of several by their weights.
  local function meant(name)
    local models = settings.aliases[name] or {}
    local draw = math.random() * (models[#models] or {upto = 0}).upto
    for _, model in ipairs(models) do
      if draw < model.upto then
        return model.name
      end
    end
  end

  -- The body, and where its model stands. Not of another encoding than UTF-8, which the engine would understand.
  local function named()
    local body = body_of_request()
    if body:find("%z") then
      return body
    end
    return body, model_at(body)
  end

  local function rename(body, from, to, model)
    if model then
      ngx.req.set_body_data(body:sub(1, from - 1) .. model .. body:sub(to + 1))
    end
  end

  -- Give the engine of this path the model that the name in the request stands for.
  function gateway.rename()
    local body, from, to = named()
    if from then
      rename(body, from, to, meant(body:sub(from, to)))
    end
  end

  -- The same as check and rename where the request names the model.
  function gateway.check_named()
    gateway.check()
    local client = ngx.ctx.client
    if not client.models and not next(settings.aliases) then
      return
    end
    local body, from, to = named()
    if not from and not client.models then
      return
    end
    if not from then
      local message = "The request must name one model, as a plain text in model."
      return refuse(400, "invalid_request_error", "model_required", message)
    end
    local name = body:sub(from, to)
    local model = meant(name)
    if not may_use(client, name) and not (model and may_use(client, model)) then
      return refuse_model(name, client)
    end
    rename(body, from, to, model)
  end

  -- Answer with the models that are ready and that this key may use.
  function gateway.models(...)
    local client, listed = ngx.ctx.client, {}
    for _, place in ipairs({...}) do
      local answer = ngx.location.capture(place)
      local found = answer.status == 200 and json.decode(answer.body) or {}
      for _, model in ipairs(found.data or {}) do
        if may_use(client, model.id) then
          listed[#listed + 1] = json.encode(model)
        end
      end
    end
    ngx.header["Content-Type"] = "application/json"
    ngx.print('{"object": "list", "data": [', table.concat(listed, ", "), "]}\n")
  end

  _G.gateway = gateway
