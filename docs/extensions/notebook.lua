-- What pandoc leaves of Sphinx's roles and directives, as Jupyter shows it.

-- :class:`torchdl.MLP`, :class:`~torchdl.MLP` and :func:`the loss <torch.nn.functional.mse_loss>`
function Code(code)
  if not code.attributes.role then return code end
  local label = code.text:match("^(.-)%s*<.->$")
  if label then return label end
  return pandoc.Code((code.text:gsub("^~", "")))
end

-- Links to other pages of the site lead nowhere from a notebook.
function Link(link)
  return link.target:match("^https?://") and link or link.content
end

-- .. dropdown:: Solution, and notes
function Div(div)
  if div.classes:includes("dropdown") then
    local title = pandoc.utils.stringify(div.content:remove(1))
    div.content:insert(1, pandoc.RawBlock("html", "<details><summary>" .. title .. "</summary>"))
    div.content:insert(pandoc.RawBlock("html", "</details>"))
    return div.content
  end
  local title = div.content[1]
  if title and title.t == "Div" and title.classes:includes("title") then
    div.content[1] = pandoc.Para(pandoc.Strong(pandoc.utils.stringify(title)))
    return pandoc.BlockQuote(div.content)
  end
end
