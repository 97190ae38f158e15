-- The health of a Project, FineTune, ModelDeployment or Team, by the same rules as kstatus: Healthy is its Current,
-- Degraded its Failed; what was suspended before it was ready is Suspended.
local status = obj.status or {}
local conditions = {}
for _, condition in ipairs(status.conditions or {}) do
  conditions[condition.type] = condition
end

local function is_true(name)
  return conditions[name] ~= nil and conditions[name].status == "True"
end

local function say(health, name, otherwise)
  local condition = conditions[name]
  return {status = health, message = condition ~= nil and condition.message or otherwise}
end

if obj.metadata.deletionTimestamp ~= nil then
  return say("Progressing", "Ready", "It is being deleted.")
end
if status.observedGeneration ~= obj.metadata.generation then
  return {status = "Progressing", message = "The operator has not looked at it yet."}
end
if is_true("Reconciling") then
  return say("Progressing", "Reconciling")
end
if is_true("Stalled") then
  return say("Degraded", "Stalled")
end
if is_true("Ready") then
  return say("Healthy", "Ready")
end
if obj.spec.suspend then
  return say("Suspended", "Ready", "It is suspended.")
end
return say("Progressing", "Ready", "It is not ready yet.")
